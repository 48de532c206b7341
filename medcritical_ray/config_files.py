"""The config as TOML: read from a file with `--set` overrides, written for a dry run.

Whatever is wrong with it ends in one `UserError` of one line that names file, key, value and what is allowed.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medcritical_ray.config import Config
from medcritical_ray.config.root import PartsDoNotFit
from medcritical_ray.errors import UserError

MAX_SHOWN_CHARS = 80
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def load_config(path: str | Path, overrides: list[str]) -> Config:
    """The config in a TOML file, with overrides such as "dpo.beta=0.2" in the order given. Raises UserError.

    An override's value is read as TOML, and as a string if it is none.
    """
    values = _read_toml(Path(path))
    if not values and not overrides:
        raise UserError(f"{path}: sets no key: must set some, such as questions.path, as jobs/configs/demo.toml does")
    return _config(values, overrides, str(path))


def with_overrides(config: Config, overrides: list[str], where: str) -> Config:
    """The config that stands at `where`, with overrides as `load_config` takes them. Raises UserError."""
    return _config(config.model_dump(exclude_none=True), overrides, where)


def describe_errors(where: str, error: ValidationError, overridden: Sequence[str] = ()) -> str:
    """What is wrong with a config that stands at `where`, but for the overridden keys, in one line."""
    return "; ".join(_problem(where, overridden, detail) for detail in error.errors())


def dump_config(config: Config) -> str:
    """The config as TOML that `load_config` reads back. Keys without a value are left out: TOML cannot write them."""
    return tomli_w.dumps(config.model_dump(exclude_none=True))


def _config(values: dict[str, Any], overrides: list[str], where: str) -> Config:
    problems, overridden = [], []
    for override in overrides:
        try:
            overridden.append(_override(values, override))
        except UserError as error:
            problems.append(str(error))
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems += [describe_errors(where, error, overridden), *_problems_of_the_rest(values, where, error)]
    if problems:
        raise UserError("; ".join(problems))
    return config


def _problems_of_the_rest(values: dict[str, Any], where: str, error: ValidationError) -> list[str]:
    """What does not fit together beside the faults of an error: that is looked at where each part is right, and so
    without the faulty keys. What names one of those may come of that, and is not told."""
    faulty = [".".join(map(str, detail["loc"])) for detail in error.errors() if detail["loc"]]
    if not faulty:
        return []
    for key in faulty:
        _remove(values, key.split("."))
    try:
        Config.model_validate(values)
    except ValidationError as rest:
        told = [problem for detail in rest.errors() if detail["loc"] == () for problem in _between_parts(detail)]
        named = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, faulty))})(?!\w)")
        return [f"{where}: {problem}" for problem in told if not named.search(problem)]
    return []


def _between_parts(detail: ErrorDetails) -> Sequence[str]:
    error = detail.get("ctx", {}).get("error")
    return error.args if isinstance(error, PartsDoNotFit) else [_allowed(detail)]


def _remove(values: Any, keys: Sequence[str]) -> None:
    *tables, name = keys
    for table in tables:
        values = values.get(table) if isinstance(values, dict) else None
    if isinstance(values, dict):
        values.pop(name, None)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory: must be a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def _override(values: dict[str, Any], override: str) -> str:
    """Sets the value of one override in place; returns its key."""
    key, equals, text = (part.strip() for part in override.partition("="))
    if not equals or not _PLAIN_KEY.fullmatch(key):
        raise UserError(f"--set {override}: must look like dpo.beta=0.2")
    *tables, name = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {table} holds a value, not keys")
    values[name] = _toml_value(text)
    return key


def _toml_value(text: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return document["value"] if len(document) == 1 else text


def _problem(path: str, overridden: Sequence[str], detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    from_override = any(f"{key}.".startswith(f"{name}.") for name in overridden)
    if detail["type"] == "extra_forbidden":  # it may be the table of what was overridden
        from_override |= any(name.startswith(f"{key}.") for name in overridden)
    where = "--set" if from_override else path
    # The cross-checks of the root name their keys themselves.
    return f"{where}: {_describe(key, detail)}" if key else f"{path}: {_allowed(detail)}"


def _describe(key: str, detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key, {_nearest(key)}"
    if detail["loc"][-1] == "[key]":
        return f"{key}: {_allowed(detail).replace('must be', 'the key must be', 1)}"
    if isinstance(detail["input"], dict):  # a table, in whose other keys there may be a secret
        return f"{key}: {_allowed(detail)}"
    return f"{key} = {_shown(detail['input'])}: {_allowed(detail)}"


def _allowed(detail: ErrorDetails) -> str:
    if detail["type"] == "model_type":
        return "must be a table"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return re.sub(r"^(Input|String|List|Dictionary) should (be a valid|be|have|match)", _must, detail["msg"])


def _must(match: re.Match[str]) -> str:
    return f"must {match[2].replace('be a valid', 'be of type')}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def _nearest(key: str) -> str:
    """What to write instead of an unknown key: the nearest of its own table, else of its part, else of all; else all of
    its table."""
    known = _known_keys(Config)
    table, _, name = key.rpartition(".")
    siblings = [other for other in known if other.rpartition(".")[0] == table]
    of_its_part = [other for other in known if other.partition(".")[0] == key.partition(".")[0]]
    leaves = {other.rpartition(".")[2]: other for other in reversed([*of_its_part, *known])}
    by_name = get_close_matches(name, [other.rpartition(".")[2] for other in siblings], n=1)
    elsewhere = get_close_matches(name, leaves, n=1, cutoff=0.75)
    if by_name:
        return f"did you mean {f'{table}.{by_name[0]}' if table else by_name[0]}?"
    if elsewhere:
        return f"did you mean {leaves[elsewhere[0]]}?"
    return f"must be one of {', '.join(siblings)}"


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys of a model and of the models in it, tables included."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += _known_keys(kind, f"{prefix}{name}.")
    return keys
