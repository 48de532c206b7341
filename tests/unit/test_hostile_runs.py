"""A run whose files hold anything: it is told in a row, reported or refused in a line."""

import json
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

from fakes import SmallRun, small_config
from hostile import Told, command, is_one_line_error, json_values, plain, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.self_play import play_to_the_end
from medcritical_ray.printable import printable


@lru_cache(maxsize=1)
def run_path() -> Path:
    """A finished run."""
    game = SmallRun(Path(mkdtemp()), small_config()).open()
    with game.run:
        play_to_the_end(game)
    return game.run.path


@lru_cache(maxsize=1)
def files() -> list[Path]:
    return sorted(path for path in run_path().rglob("*") if path.is_file() and path.stat().st_size)


@lru_cache(maxsize=200)
def content_of(file: Path) -> bytes:
    """As it was written."""
    return file.read_bytes()


@st.composite
def damages(draw: st.DrawFn) -> tuple[Path, bytes]:
    """A file of the run, and what stands in it instead."""
    file = draw(st.sampled_from(files()))
    content = content_of(file)
    at = draw(st.integers(0, len(content) - 1))
    kinds = [content[:at], content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]]
    if file.suffix in (".json", ".jsonl"):
        kinds += [json.dumps(draw(json_values)).encode(), draw(texts.map(plain)).encode(), changed(content, draw)]
    return file, draw(st.sampled_from(kinds))


def changed(content: bytes, draw: st.DrawFn) -> bytes:
    """The last object of a file of JSON, one of its values another."""
    value = json.loads(content if content.strip().startswith(b"{\n") else content.splitlines()[-1])
    if isinstance(value, dict) and value:
        value[draw(st.sampled_from(sorted(value)))] = draw(json_values)
    return json.dumps(value).encode()


def told(damage: tuple[Path, bytes], *words: object) -> Told:
    """What a command makes of the run with that file, which is mended afterwards."""
    file, content = damage
    file.write_bytes(content)
    try:
        return command(*words)
    finally:
        file.write_bytes(content_of(file))


@given(damages(), st.booleans())
def test_whatever_a_file_of_a_run_holds_the_run_is_a_row(damage: tuple[Path, bytes], as_json: bool):
    row = told(damage, "runs", run_path(), *["--json"] * as_json)
    assert (row.exit_code, row.err) == (0, "")
    assert printable(row.out) == row.out
    assert str(run_path()) in "".join(row.out.split())


@settings(max_examples=10)  # a report takes a second
@given(damages())
def test_whatever_a_file_of_a_run_holds_it_is_reported_or_refused_in_a_line(damage: tuple[Path, bytes]):
    report = told(damage, "report", run_path())
    assert report.exit_code == 0 or is_one_line_error(report)
