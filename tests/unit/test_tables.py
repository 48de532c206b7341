from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medcritical_ray.errors import UserError
from medcritical_ray.records import Demonstration, PreferencePair, Trajectory
from medcritical_ray.run.tables import (
    count_rows,
    iter_parts,
    missing_parts,
    part_paths,
    read_part,
    schema_of,
    write_part,
)

ATTEMPT = Trajectory(
    iteration=1,
    question_id="q1",
    task="solve",
    attempt=0,
    sample=0,
    version=2,
    output="Answer: 阿莫西林 (C)",
    trace="Answer: 阿莫西林 (C)",
    finished=True,
    num_tokens=7,
    answer="C",
    agrees=True,
    correct=False,
)
REPAIR = Trajectory(
    iteration=1,
    question_id="q1",
    task="repair",
    attempt=0,
    sample=3,
    version=2,
    output="",
    trace="",
    finished=False,
    num_tokens=64,
    answer="",
    agrees=False,
    correct=False,
    first_wrong_step=2,
)
PAIR = PreferencePair(
    iteration=1,
    question_id="q1",
    source="correction",
    attempt=0,
    prompt="Why?",
    prefix="",
    chosen="right",
    rejected="wrong",
    rest="",
    chosen_version=2,
    rejected_version=1,
    reason="3 of 4 repairs reach the key",
)
DEMONSTRATION = Demonstration(question_id="q1", task="solve", prompt="Why?", response="Because.")


def demonstration(number: int) -> Demonstration:
    return Demonstration(question_id=f"q{number}", task="solve", prompt="Why?", response="Because.")


def test_trajectories_come_back_as_they_were(tmp_path: Path):
    path = write_part(tmp_path, 0, [ATTEMPT, REPAIR], Trajectory)
    assert path == tmp_path / "part-00000.parquet"
    assert read_part(path, Trajectory) == [ATTEMPT, REPAIR]


def test_pairs_and_demonstrations_come_back_as_they_were(tmp_path: Path):
    assert read_part(write_part(tmp_path / "pairs", 0, [PAIR], PreferencePair), PreferencePair) == [PAIR]
    assert read_part(write_part(tmp_path / "sft", 0, [DEMONSTRATION], Demonstration), Demonstration) == [DEMONSTRATION]


def test_columns_are_the_fields_and_only_optional_ones_may_be_null():
    schema = schema_of(Trajectory)
    assert schema.field("num_tokens") == pa.field("num_tokens", pa.int64(), nullable=False)
    assert schema.field("task") == pa.field("task", pa.string(), nullable=False)
    assert schema.field("first_wrong_step") == pa.field("first_wrong_step", pa.int64(), nullable=True)


def test_any_flat_dataclass_has_columns(tmp_path: Path):
    @dataclass(frozen=True)
    class Row:
        file: str
        score: float | None

    path = write_part(tmp_path, 0, [Row("a.csv", 0.5), Row("b.csv", None)], Row)
    assert read_part(path, Row) == [Row("a.csv", 0.5), Row("b.csv", None)]


def test_a_field_that_is_not_flat_is_refused():
    @dataclass(frozen=True)
    class Row:
        names: list[str]

    with pytest.raises(TypeError, match="field names of type"):
        schema_of(Row)


def test_an_empty_part_is_a_file_with_columns(tmp_path: Path):
    path = write_part(tmp_path, 0, [], Trajectory)
    assert read_part(path, Trajectory) == []
    assert pq.read_schema(path).names == schema_of(Trajectory).names


def test_parts_are_read_in_order_whatever_the_order_of_writing(tmp_path: Path):
    for index in [10, 2, 0]:
        write_part(tmp_path, index, [demonstration(index)], Demonstration)
    assert [row.question_id for row in iter_parts(tmp_path, Demonstration)] == ["q0", "q2", "q10"]


def test_a_part_that_is_written_again_replaces_the_first(tmp_path: Path):
    write_part(tmp_path, 0, [demonstration(1), demonstration(2)], Demonstration)
    write_part(tmp_path, 0, [demonstration(1)], Demonstration)
    assert count_rows(tmp_path) == 1


def test_missing_parts_are_what_is_left_to_write(tmp_path: Path):
    assert missing_parts(tmp_path / "nothing", 2) == [0, 1]
    for index in [0, 2]:
        write_part(tmp_path, index, [], Demonstration)
    assert missing_parts(tmp_path, 4) == [1, 3]


def test_rows_are_counted_over_parts(tmp_path: Path):
    write_part(tmp_path, 0, [demonstration(1), demonstration(2)], Demonstration)
    write_part(tmp_path, 1, [], Demonstration)
    write_part(tmp_path, 2, [demonstration(3)], Demonstration)
    assert count_rows(tmp_path) == 3


def test_a_part_that_cannot_be_written_leaves_nothing_and_keeps_the_old_one(tmp_path: Path):
    write_part(tmp_path, 0, [demonstration(1)], Demonstration)
    wrong = Demonstration(question_id=7, task="solve", prompt="", response="")  # type: ignore[arg-type]
    with pytest.raises(pa.ArrowTypeError):
        write_part(tmp_path, 0, [wrong], Demonstration)
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.parquet"]
    assert count_rows(tmp_path) == 1


def test_what_a_killed_writer_left_is_not_a_part(tmp_path: Path):
    (tmp_path / ".part-00000.parquet.0123.tmp").write_bytes(b"PAR1 torn")
    assert part_paths(tmp_path) == []
    assert missing_parts(tmp_path, 1) == [0]


def test_a_damaged_part_is_named(tmp_path: Path):
    (tmp_path / "part-00000.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"part-00000\.parquet is no readable parquet file"):
        count_rows(tmp_path)


def test_a_part_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"part-00003\.parquet does not exist"):
        read_part(tmp_path / "part-00003.parquet", Demonstration)


def test_records_of_another_kind_are_refused(tmp_path: Path):
    path = write_part(tmp_path, 0, [DEMONSTRATION], Demonstration)
    with pytest.raises(UserError, match="not those of PreferencePair"):
        read_part(path, PreferencePair)
