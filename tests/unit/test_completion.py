"""The completion scripts, sourced and asked by a real shell."""

import shlex
import subprocess
from pathlib import Path

import pytest

from jobs.cli import COMMANDS, SHELLS, main
from jobs.parts.completion import completion_script

# What bash itself does on Tab: the words so far, the word under the cursor, and the function that `complete` names.
ASK = """
source {script}
COMP_WORDS=({words} {last}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
function=$(complete -p medcritical | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function medcritical {last} "${{COMP_WORDS[COMP_CWORD - 1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "medcritical"
    path.write_text(completion_script("bash"))
    return path


def offered(script: Path, words: str, last: str, cwd: Path) -> set[str]:
    asked = ASK.format(script=script, words=words, last=shlex.quote(last))
    found = subprocess.run(["bash", "--norc", "-c", asked], cwd=cwd, capture_output=True, text=True, check=True)
    return {word.strip() for word in found.stdout.splitlines() if word.strip()}


def test_bash_completes_commands(script: Path, tmp_path: Path):
    assert offered(script, "medcritical", "", tmp_path) >= set(COMMANDS)
    assert offered(script, "medcritical", "ru", tmp_path) == {"runs"}
    assert offered(script, "medcritical", "s", tmp_path) == {name for name in COMMANDS if name.startswith("s")}


def test_bash_completes_the_options_of_a_command(script: Path, tmp_path: Path):
    assert offered(script, "medcritical evaluate", "--q", tmp_path) == {"--questions"}
    assert offered(script, "medcritical sft", "--", tmp_path) == {"--help", "--config", "--set", "--resume"}


def test_bash_completes_values_files_and_directories(script: Path, tmp_path: Path):
    (tmp_path / "mine.toml").touch()
    (tmp_path / "models").mkdir()
    assert offered(script, "medcritical questions --format", "pub", tmp_path) == {"pubmedqa"}
    assert offered(script, "medcritical self-play --config", "m", tmp_path) >= {"mine.toml"}
    assert offered(script, "medcritical export --run", "m", tmp_path) == {"models"}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--print-completion", shell])
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_another_shell_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["--print-completion", "cmd"])
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
