import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from jobs.cli import COMMANDS, main, run_job
from medcritical_ray import __version__
from medcritical_ray.errors import MedCriticalError, RunFailed, Stopped, UserError, WaitTimeout

HEAVY = {"pyarrow", "pydantic", "ray", "rich", "scipy", "torch", "transformers", "vllm"}


def job(run: Callable[[argparse.Namespace], int]) -> ModuleType:
    module = ModuleType("jobs.fake_job")
    module.SUMMARY = "does as it is told"
    module.add_arguments = lambda parser: parser.add_argument("--num", type=int, default=0)
    module.run = run
    return module


def raising(error: BaseException) -> ModuleType:
    def run(args: argparse.Namespace) -> int:
        raise error

    return job(run)


def test_the_command_line_imports_nothing_heavy():
    script = "import sys, jobs.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert HEAVY.isdisjoint(printed.split())


def test_the_help_lists_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    printed = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"{name} " in printed
        assert summary in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_job_with_the_summary_that_the_help_shows(name: str):
    module = importlib.import_module(f"jobs.{name.replace('-', '_')}")
    module.add_arguments(argparse.ArgumentParser())
    assert COMMANDS[name] == module.SUMMARY
    assert callable(module.run)


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"medcritical {__version__}\n"


def test_an_unknown_command_exits_with_2(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["self-pley"])
    assert "invalid choice: 'self-pley'" in capsys.readouterr().err


def test_no_command_exits_with_2(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^2$"):
        main([])
    assert "required: command" in capsys.readouterr().err


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
