"""The console command `medcritical`, and what every job needs to be run from a shell.

A job is a module of this package with `SUMMARY`, `add_arguments(parser)` and `run(args) -> int`. It is imported when it
is chosen, so that the help answers at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import PurePath
from types import ModuleType

import medcritical_ray
from medcritical_ray.errors import MedCriticalError, Stopped, UserError

COMMANDS = {
    "self-play": "run the whole method: stage 1, then the self-iterations",
    "study": "compare self-correction with its controls, over seeds, each from the same student of stage 1",
    "evaluate": "measure a policy on questions, alone or against another policy",
    "distill": "have a large model write the templates of stage 1, within a budget",
    "export": "write a policy of a run as a Hugging Face directory with a model card",
    "serve": "serve every policy of a run behind the OpenAI API, also while the run goes on",
    "report": "write the report of a run as one HTML page, also while it goes on",
    "submit": "run another command as a job on a cluster, after checking what can be checked before",
    "fetch": "copy a run, or a policy of one, from an object store to a directory",
    "questions": "read a question file, count what was loaded and quarantined, and, --against others, stems they share",
    "train-base": "train the clinic's base student from nothing",
    "bench-update": "time a weight update of a running engine against its restart",
    "bench-serve": "time serving while policies are swapped, beside vLLM's own server",
}
"""One line per command; `self-play` is the module `jobs.self_play`, and so on."""

EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_STOPPED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `medcritical <command> ...` and returns its exit code. A usage error exits with 2, as argparse does."""
    args = _command_parser().parse_args(argv)
    return run_job(f"jobs.{args.command.replace('-', '_')}", args.arguments)


def run_job(job: str | ModuleType, argv: Sequence[str] | None = None) -> int:
    """Parses a job's arguments (the process's own by default), runs it and returns its exit code.

    Errors that the project raises on purpose become one line on stderr: 2 for the user's to mend, 1 for the others.
    """
    try:
        module = importlib.import_module(job) if isinstance(job, str) else job
        parser = argparse.ArgumentParser(prog=_program(module), description=module.SUMMARY)
        module.add_arguments(parser)
        args = parser.parse_args(argv)
        _check_paths(args)
        exit_code: int = module.run(args)
    except UserError as error:
        return _fail(str(error), EXIT_USER_ERROR)
    except MedCriticalError as error:
        return _fail(str(error), EXIT_FAILED)
    except Stopped as signal:
        return _fail(f"stopped by {signal}", EXIT_STOPPED)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    return exit_code


def _command_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="medcritical",
        description="Self-play for small medical language models: they learn from their own corrected mistakes.",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {medcritical_ray.__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see: medcritical <command> --help")
    return parser


def _program(module: ModuleType) -> str:
    """The command as the user may type it, also where the module runs as `__main__`."""
    name = module.__spec__.name if module.__spec__ else module.__name__
    return f"medcritical {name.rpartition('.')[2].replace('_', '-')}"


def _check_paths(args: argparse.Namespace) -> None:
    """Raises UserError if a URI is given for a path: commands read and write directories."""
    from medcritical_ray.locations import is_uri

    for value in vars(args).values():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, PurePath) and is_uri(str(path)):
                uri = str(path).replace(":/", "://", 1)
                raise UserError(f"{uri}: must be a path: `medcritical fetch {uri} DIR` copies what is there")


def _fail(message: str, exit_code: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
