"""The console command `medcritical`, and what every job needs to be run from a shell.

A job is a module of this package with `SUMMARY`, `EXAMPLES`, `add_arguments(parser)` and `run(args) -> int`. It is
imported when it is chosen, and imports what is heavy when it runs, so that every help answers at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, TextIO

import medcritical_ray
from medcritical_ray.errors import MedCriticalError, Stopped, UserError
from medcritical_ray.printable import printable

COMMANDS = {
    "demo": "play the whole method on the embedded clinic, in minutes on two cores; started again, it goes on",
    "self-play": "run the whole method: stage 1, then the self-iterations",
    "distill": "have a large model write the templates of stage 1, within a budget",
    "sft": "run stage 1 alone; self-play goes on from there",
    "evaluate": "measure a policy on questions, alone or against another policy",
    "study": "compare self-correction with its controls, over seeds, each from the same student of stage 1",
    "export": "write a policy of a run as a Hugging Face directory with a model card",
    "serve": "serve every policy of a run behind the OpenAI API, also while the run goes on",
    "report": "write the report of a run as one HTML page, also while it goes on",
    "submit": "run another command as a job on a cluster, after checking what can be checked before",
    "fetch": "copy a run, or a policy of one, from an object store to a directory",
    "questions": "read a question file, count what was loaded and quarantined, and, --against others, stems they share",
    "chaos": "play a run under random kills of its processes and nodes, and compare it with the same run undisturbed",
    "runs": "list runs: how far each is, its accuracy, and the command to go on with; or verify their files",
    "train-base": "train the clinic's base student from nothing",
    "benchmark": "measure rollouts, trainings, broadcasts and whole iterations beside what one would take instead",
    "bench-serve": "time serving while policies are swapped, beside vLLM's own server",
}
"""One line per command; `self-play` is the module `jobs.self_play`, and so on."""

SHELLS = ("bash", "zsh", "fish")
COMPLETION = (
    "completion:\n"
    "  bash  mkdir -p ~/.local/share/bash-completion/completions\n"
    "        medcritical --print-completion bash > ~/.local/share/bash-completion/completions/medcritical\n"
    '  zsh   medcritical --print-completion zsh > "${fpath[1]}/_medcritical"\n'
    "  fish  mkdir -p ~/.config/fish/completions\n"
    "        medcritical --print-completion fish > ~/.config/fish/completions/medcritical.fish"
)

EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_STOPPED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `medcritical <command> ...` and returns its exit code. A usage error exits with 2, as argparse does, and so
    does no word at all, after the help."""
    parser = _command_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return EXIT_USER_ERROR
    return run_job(module_name(args.command), args.arguments)


def run_job(job: str | ModuleType, argv: Sequence[str] | None = None) -> int:
    """Parses a job's arguments (the process's own by default), runs it and returns its exit code.

    Errors that the project raises on purpose become one line on stderr: 2 for the user's to mend, 1 for the others.
    """
    _show_all_characters()
    try:
        _check_words(sys.argv[1:] if argv is None else argv)
        module = importlib.import_module(job) if isinstance(job, str) else job
        args = parser_of(module).parse_args(argv)
        _check_paths(args)
        exit_code: int = module.run(args)
    except UserError as error:
        return _fail(str(error), EXIT_USER_ERROR)
    except MedCriticalError as error:
        return _fail(str(error), EXIT_FAILED)
    except Stopped as signal:
        return _fail("; ".join([f"stopped by {signal}", *_notes_of(signal)]), EXIT_STOPPED)
    except KeyboardInterrupt as interrupt:
        return _fail("; ".join(["interrupted", *_notes_of(interrupt)]), EXIT_INTERRUPTED)
    return exit_code


def say(*lines: str, file: TextIO | None = None) -> None:
    """Prints lines that may hold text of any origin: see `printable`."""
    print(*map(printable, lines), sep="\n", file=file or sys.stdout, flush=True)


def note(*lines: str) -> None:
    """Tells what goes on, for a person who waits: on stderr, since stdout is for results."""
    say(*lines, file=sys.stderr)


def module_name(command: str) -> str:
    return f"jobs.{command.replace('-', '_')}"


def parser_of(module: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_program(module), **texts_of(module))
    module.add_arguments(parser)
    return parser


def texts_of(module: ModuleType) -> dict[str, Any]:
    """What a job's help says beside its arguments, as an ArgumentParser takes it."""
    return {
        "description": module.SUMMARY,
        "epilog": "\n  ".join(("examples:", *module.EXAMPLES)),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def general_parser() -> argparse.ArgumentParser:
    """The parser of what stands before the command."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="medcritical",
        description="Self-play for small medical language models: they learn from their own corrected mistakes.",
        epilog=f"commands:\n{commands}\n\nEvery command has examples in its help.\n\n{COMPLETION}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {medcritical_ray.__version__}")
    parser.add_argument("--print-completion", action=_PrintCompletion, choices=SHELLS, help="print a completion script")
    return parser


def _command_parser() -> argparse.ArgumentParser:
    parser = general_parser()
    parser.add_argument("command", nargs="?", type=_command, metavar="command", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see: medcritical <command> --help")
    return parser


def _command(word: str) -> str:
    if word in COMMANDS:
        return word
    nearest = get_close_matches(word, COMMANDS, n=1)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"must be one of {', '.join(COMMANDS)}"
    raise argparse.ArgumentTypeError(f"{word}: unknown command, {remedy}")


class _PrintCompletion(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, shell: Any, option: str | None = None
    ) -> None:
        from jobs.parts.completion import completion_script

        print(completion_script(shell))
        parser.exit()


def _program(module: ModuleType) -> str:
    """The command as the user may type it, also where the module runs as `__main__`."""
    name = module.__spec__.name if module.__spec__ else module.__name__
    return f"medcritical {name.rpartition('.')[2].replace('_', '-')}"


def _check_words(argv: Sequence[str]) -> None:
    """Raises UserError for what is no text: it could be written into no record, which all files of a run are."""
    try:
        words = [*argv, str(Path.cwd())]
    except FileNotFoundError:
        raise UserError("the directory that the command was started in is gone: change to another") from None
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(f"{word}: is no UTF-8: rename it") from None


def _check_paths(args: argparse.Namespace) -> None:
    """Raises UserError if a URI is given for a path: commands read and write directories."""
    from medcritical_ray.store.locations import is_uri

    for value in vars(args).values():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, PurePath) and is_uri(str(path)):
                uri = str(path).replace(":/", "://", 1)
                raise UserError(f"{uri}: must be a path: `medcritical fetch {uri} DIR` copies what is there")


def _show_all_characters() -> None:
    """What a stream's encoding cannot say is escaped: else a name or a stem would end a command with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _notes_of(error: BaseException) -> list[str]:
    """What was added to an error on its way here, such as the command that goes on."""
    return getattr(error, "__notes__", [])


def _fail(message: str, exit_code: int) -> int:
    sys.stdout.flush()  # else what was said before comes after, in a pipe
    say(f"error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
