"""The run that a file on disk belongs to, and what it was configured with."""

from pathlib import Path

from pydantic import ValidationError

from medcritical_ray.config import Config
from medcritical_ray.errors import UserError
from medcritical_ray.run_directory import RunDirectory


def find_run(path: Path) -> RunDirectory | None:
    """The run that a policy or a file of questions belongs to, told from its place: runs/demo/policies/v0003,
    runs/demo/student or runs/demo/data/test.parquet."""
    parents = path.resolve().parents[:2]
    return next((RunDirectory(parent) for parent in parents if (parent / "run.json").exists()), None)


def run_config(run: RunDirectory, remedy: str) -> Config:
    """The config in a run's record. Raises UserError, which ends with the remedy, if this version of the package does
    not take it."""
    try:
        return Config.model_validate(run.record().config)
    except ValidationError:
        raise UserError(f"the config in {run.path / 'run.json'} is of another version: {remedy}") from None
