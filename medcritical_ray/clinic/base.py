"""Where the base weights of the clinic's student lie."""

from importlib.resources import as_file, files
from pathlib import Path


def base_student_dir() -> Path:
    """The directory of the base weights that come with the package."""
    with as_file(files(__package__).joinpath("base_student")) as path:
        return path
