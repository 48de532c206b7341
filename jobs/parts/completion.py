"""What has a shell complete commands, options, files and directories: a script, made of the parsers of all jobs."""

import argparse
import importlib

import shtab

from jobs.cli import COMMANDS, general_parser, module_name, texts_of

_COMPLETED = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "POLICY": shtab.DIRECTORY}
"""What follows an option or stands alone, by its metavar."""


def completion_script(shell: str) -> str:
    return shtab.complete(whole_parser(), shell)


def whole_parser() -> argparse.ArgumentParser:
    """One parser for all commands, such as `main` does without: it imports every job."""
    parser = general_parser()
    commands = parser.add_subparsers()
    for name, summary in COMMANDS.items():
        module = importlib.import_module(module_name(name))
        command = commands.add_parser(name, help=summary, **texts_of(module))
        module.add_arguments(command)
        for action in command._actions:
            if action.metavar in _COMPLETED:
                action.complete = _COMPLETED[action.metavar]  # type: ignore[attr-defined]
    return parser
