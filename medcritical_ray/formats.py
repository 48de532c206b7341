"""The names of the formats that questions are read from. They stand apart from the readers, so that the command's help
need not load these."""

from typing import Literal

Format = Literal["auto", "native", "cmexam", "medqa", "medmcqa", "medxpertqa", "cmb", "pubmedqa", "mapped"]
"""`auto` tells the format from the file's columns; `mapped` takes them by a mapping's names, or else by usual ones."""
