"""The arms of a study: how their configs differ, and where their runs lie."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medcritical_ray.config import Config
from medcritical_ray.config_files import describe_errors
from medcritical_ray.errors import UserError
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import check_resumable, record_of

Arms = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Arm -> the keys, by part of the config, in which its config differs."""

TRUNK = "sft"
"""The arm that is stage 1 alone, from which all others go on. Every study has it."""

_SELF = {"correction": 0.75, "repair": 0.1, "keep": 0.15}
_BOTH = {"correction": 0.4, "own": 0.35, "repair": 0.1, "keep": 0.15}
ARMS: Arms = {
    "self_dpo": {"pairs": {"shares": _SELF}},
    "teacher_dpo": {"pairs": {"shares": {"correction": 1.0}}, "correct": {"policy": "teacher"}},
    "own_pairs_dpo": {"pairs": {"shares": {"own": 1.0}, "min_agreement": 1}},
    "both_dpo": {"pairs": {"shares": _BOTH}},
    "rft": {"pairs": {"shares": _BOTH}, "dpo": {"preference_weight": 0.0, "likelihood_weight": 1.0}},
}
"""DPO on self-corrections; on the teacher's corrections; on own right against own wrong attempts; on both
self-corrections and own attempts; SFT on the chosen texts of the same sources. Where the student corrects, a quarter of
the pairs keeps its corrector up. A right attempt needs no witness where there are no repairs: with one, the clinic's
student has too few pairs (docs/results.md)."""

WITH_SELF_CORRECTION = ("self_dpo", "both_dpo")

_OWN_PARTS = {"run", "generate", "correct", "pairs", "dpo"}
_SHARED_KEYS = {"dpo.method", "dpo.lora"}
"""Engines are started once, with or without room for adapters."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,60}")


def read_arms(path: Path) -> Arms:
    """Arms from a TOML file: a table for each, with the keys in which it differs, as dpo.beta = 0.2.

    Raises UserError for names that are no arms', and for keys of stage 1 or of machines, which all arms share.
    """
    try:
        arms: Arms = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--arms {path}: cannot be read as TOML: {error}") from None
    if not arms:
        raise UserError(f"--arms {path}: must have a table for each arm")
    for arm, keys in arms.items():
        if arm == TRUNK or not _PLAIN_NAME.fullmatch(arm):
            raise UserError(f"--arms {path}: {arm}: must be a name of letters, digits and _, and not {TRUNK}")
        if not isinstance(keys, dict) or not all(isinstance(part, dict) for part in keys.values()):
            raise UserError(f"--arms {path}: {arm}: must hold tables of keys, as [{arm}.dpo]")
        refused = sorted(set(_flat(keys)) & _SHARED_KEYS) + sorted(set(keys) - _OWN_PARTS)
        if refused or set(keys.get("run", {})) - {"num_iterations"}:
            raise UserError(
                f"--arms {path}: {arm}: may set keys of {', '.join(sorted(_OWN_PARTS - {'run'}))} and "
                f"run.num_iterations only, and not {' or '.join(sorted(_SHARED_KEYS))}: all else is common to the arms"
            )
    return arms


def _flat(keys: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{part}.{key}" for part, values in keys.items() for key in values]


def arm_configs(config: Config, arms: Arms, seeds: Iterable[int], out: Path) -> dict[tuple[int, str], Config]:
    """The config of every run, by seed and arm, in the order in which they are played.

    Raises UserError if the keys of an arm do not make a valid config.
    """
    return {(seed, arm): arm_config(config, arm, arms, seed, out) for seed in seeds for arm in (TRUNK, *arms)}


def arm_config(config: Config, arm: str, arms: Arms, seed: int, out: Path) -> Config:
    """The config of one arm's run: what all arms have in common, and the arm's own keys."""
    place = arm_run(out, seed, arm).path
    run = {"seed": seed, "name": place.name, "directory": str(place.parent)}
    own_keys = arms[arm] if arm != TRUNK else {"run": {"num_iterations": 0}}
    values = _merged(_merged(config.model_dump(), own_keys), {"run": run})
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(describe_errors(f"arm {arm}", error)) from None


def _merged(values: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Values with some keys changed; `shares` are replaced as a whole, since they sum to 1."""
    merged = dict(values)
    for key, value in keys.items():
        is_part = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "shares"
        merged[key] = _merged(merged[key], value) if is_part else value
    return merged


def is_finished(run: RunDirectory, config: Config) -> bool:
    """Whether a run with this config is there and finished. Raises UserError if one with another config is there."""
    if not run.exists():
        return False
    check_resumable(run.record(), record_of(config))
    return run.summary_file.exists()


def arm_run(out: Path, seed: int, arm: str) -> RunDirectory:
    """Where an arm's run lies in the study's directory."""
    return RunDirectory(out / f"seed-{seed}" / arm)


def leading_arms(arms: Iterable[str]) -> list[str]:
    """The arms that are compared with all others: those with self-correction, or else the first of other arms."""
    arms = list(arms)
    return [arm for arm in WITH_SELF_CORRECTION if arm in arms] or arms[:1]
