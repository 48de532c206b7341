import argparse
import importlib
import os
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import jobs
from jobs.cli import COMMANDS, main, module_name, run_job
from jobs.parts.completion import whole_parser
from medcritical_ray import __version__
from medcritical_ray.errors import MedCriticalError, RunFailed, Stopped, UserError, WaitTimeout

HEAVY = {"pyarrow", "pydantic", "ray", "rich", "scipy", "torch", "transformers", "vllm"}


def job(run: Callable[[argparse.Namespace], int]) -> ModuleType:
    module = ModuleType("jobs.fake_job")
    module.SUMMARY = "does as it is told"
    module.EXAMPLES = ("medcritical fake-job --num 7",)
    module.add_arguments = lambda parser: parser.add_argument("--num", type=int, default=0)
    module.run = run
    return module


def raising(error: BaseException) -> ModuleType:
    def run(args: argparse.Namespace) -> int:
        raise error

    return job(run)


def test_no_help_imports_anything_heavy():
    script = (
        "import sys, jobs.parts.completion as c; c.whole_parser(); print(*{n.partition('.')[0] for n in sys.modules})"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "shtab" in printed.split()
    assert HEAVY.isdisjoint(printed.split())


def test_the_help_takes_less_than_a_second_of_computing():
    script = "import sys, resource, jobs.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    script += "print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), file=sys.stderr)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("usage: medcritical")
    assert float(shown.stderr) < 1


def test_the_help_lists_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    printed = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"{name} " in printed
        assert summary in printed


def test_every_file_of_jobs_is_a_command_but_for_the_one_that_starts_them():
    [directory] = jobs.__path__
    files = {file.stem for file in Path(directory).glob("*.py")}
    assert files == {"__init__", "cli", *(name.replace("-", "_") for name in COMMANDS)}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_job_with_the_summary_that_the_help_shows(name: str):
    module = importlib.import_module(f"jobs.{name.replace('-', '_')}")
    module.add_arguments(argparse.ArgumentParser())
    assert COMMANDS[name] == module.SUMMARY
    assert callable(module.run)


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(commands.choices)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_a_help_can_be_typed(name: str, capsys: pytest.CaptureFixture[str]):
    module, parsers = importlib.import_module(module_name(name)), commands_of(whole_parser())
    assert any(example.startswith(f"medcritical {name}") for example in module.EXAMPLES)
    for example in module.EXAMPLES:
        program, command, *arguments = shlex.split(example, comments=True)
        assert program == "medcritical"
        parsers[command].parse_args(arguments)
    with pytest.raises(SystemExit, match=r"^0$"):
        main([name, "--help"])
    printed = capsys.readouterr().out
    assert all(example in printed for example in module.EXAMPLES)


def actions_by_option() -> dict[str, list[argparse.Action]]:
    """Of all commands. A result is printed by --json where it comes at once, and kept by --json FILE where it takes an
    hour: two options."""
    actions = defaultdict(list)
    for parser in commands_of(whole_parser()).values():
        for action in parser._actions:
            for option in action.option_strings:
                is_kept = option == "--json" and action.metavar == "FILE"
                actions["--json FILE" if is_kept else option].append(action)
    return actions


def test_an_option_means_the_same_wherever_it_stands():
    forms = {
        option: {(type(action), action.nargs) for action in actions} for option, actions in actions_by_option().items()
    }
    assert {option: found for option, found in forms.items() if len(found) > 1} == {}


def test_an_option_shared_by_commands_has_one_help_text():
    for option in ("--set", "--resume", "--json", "--json FILE", "--run", "--format", "--map"):
        assert len({action.help for action in actions_by_option()[option]}) == 1, option


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"medcritical {__version__}\n"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("self-pley", "self-pley: unknown command, did you mean self-play?\n"),
        ("dance", "dance: unknown command, must be one of demo, self-play, distill, sft, "),
    ],
)
def test_an_unknown_command_is_refused_with_the_nearest(word: str, told: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^2$"):
        main([word])
    assert told in capsys.readouterr().err


def test_without_a_word_the_help_is_shown_and_the_exit_code_is_2(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert "commands:\n  demo " in capsys.readouterr().err


def test_a_command_runs_its_module_with_the_arguments_after_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "jobs.self_play", job(lambda args: args.num))
    assert main(["self-play", "--num", "7"]) == 7


def test_a_job_s_exit_code_is_passed_on():
    assert run_job(job(lambda args: 3), []) == 3


def test_a_job_s_usage_names_the_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^2$"):
        run_job(job(lambda args: 0), ["--num", "many"])
    assert capsys.readouterr().err.startswith("usage: medcritical fake-job [-h] [--num NUM]\n")


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (UserError("no such file: x.csv"), 2, "error: no such file: x.csv\n"),
        (RunFailed("phase pair of\niteration 1 failed"), 1, "error: phase pair of iteration 1 failed\n"),
        (WaitTimeout("engine-1 silent for 60 s"), 1, "error: engine-1 silent for 60 s\n"),
        (MedCriticalError("something else"), 1, "error: something else\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (Stopped("SIGTERM"), 143, "error: stopped by SIGTERM\n"),
    ],
)
def test_an_error_becomes_one_line_and_an_exit_code(
    error: BaseException, exit_code: int, line: str, capsys: pytest.CaptureFixture[str]
):
    assert run_job(raising(error), []) == exit_code
    assert capsys.readouterr() == ("", line)


def test_a_uri_for_a_path_is_refused_with_the_command_that_copies_it(capsys: pytest.CaptureFixture[str]):
    assert main(["report", "s3://bucket/runs/demo"]) == 2
    assert capsys.readouterr().err == (
        "error: s3://bucket/runs/demo: must be a path: `medcritical fetch s3://bucket/runs/demo DIR` copies what is "
        "there\n"
    )


def test_an_error_that_nobody_meant_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_job(raising(ZeroDivisionError()), [])


BASE_STUDENT = Path(__file__).parents[2] / "medcritical_ray" / "clinic" / "base_student"
QUESTION = """{"stem": "Is it?", "key": "A", "labels": {"ward": "3"},
"options": [{"letter": "A", "text": "yes"}, {"letter": "B", "text": "no"}]}""".replace("\n", " ")
STUDENT_IS_GONE = """[questions]
kind = "file"
path = "exam.csv"
[teacher]
kind = "explanations"
[student]
path = "model"
"""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("demo --set run.nme=x", "run.nme: unknown key, did you mean run.name?"),
        (
            "self-play --config my.toml",
            "questions.path = exam.csv: no such file; student.path = model: no such directory",
        ),
        (
            "self-play --config my.toml --dry-run",
            "questions.path = exam.csv: no such file; student.path = model: no such",
        ),
        ("sft --config .", ".: is a directory: must be a TOML file"),
        ("evaluate --policy v0003 --questions exam.csv --out r.json", "v0003: no such directory"),
        (
            f"evaluate --policy {BASE_STUDENT} --questions own.jsonl --out r.json --by nope",
            "--by nope: no question has that label; there are: ward",
        ),
        ("serve --run runs/my", "no run there"),
        ("demo --set run.directory=my.toml", "run.directory = my.toml: cannot be written below "),
        ("demo --set run.directory=/proc/foo", "run.directory = /proc/foo: cannot be written below /proc: "),
        ("train-base --out my.toml", "--out my.toml exists: choose another directory"),
        ("train-base --out my.toml/student", "--out my.toml/student: cannot be written below "),
    ],
)
def test_what_files_alone_tell_is_told_before_anything_heavy_is_imported(words: str, told: str, tmp_path: Path):
    (tmp_path / "my.toml").write_text(STUDENT_IS_GONE)
    (tmp_path / "own.jsonl").write_text(QUESTION)
    script = f"import sys, jobs.cli as c\nprint(c.main({words.split()}), *{{n.partition('.')[0] for n in sys.modules}})"
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=tmp_path, env=path, capture_output=True, text=True
    )
    exit_code, *imported = done.stdout.split()
    assert (exit_code, told in done.stderr) == ("2", True), done.stderr
    assert {"openai", "ray", "torch", "transformers", "vllm"}.isdisjoint(imported)


def test_what_was_added_to_an_interrupt_is_told(capsys: pytest.CaptureFixture[str]):
    stopped = Stopped("SIGTERM")
    stopped.add_note("resume with: medcritical demo")
    assert run_job(raising(stopped), []) == 143
    assert capsys.readouterr().err == "error: stopped by SIGTERM; resume with: medcritical demo\n"
