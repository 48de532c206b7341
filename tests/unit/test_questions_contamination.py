"""Stems that stand in two sets of questions."""

from medcritical_ray.questions import shared_stems
from medcritical_ray.records import Question, lettered


def questions(name: str, *stems: str) -> list[Question]:
    return [
        Question(id=f"{name}-{number}", source="ward", stem=stem, options=lettered(["yes", "no"]), key="A")
        for number, stem in enumerate(stems)
    ]


SETS = {
    "train": questions("train", "Fever?", "Cough?", "fever"),
    "dev": questions("dev", "Ｆever ?", "Rash?"),
    "test": questions("test", "Pain?", "rash"),
}


def test_stems_that_two_sets_share_are_counted_once_each():
    counts = {pair: stems.num_stems for pair, stems in shared_stems(SETS).items()}
    assert counts == {"train and dev": 1, "train and test": 0, "dev and test": 1}


def test_examples_name_both_questions_and_the_stem():
    assert shared_stems(SETS)["train and dev"].examples == [("train-0", "dev-0", "Fever?")]


def test_a_few_examples_stand_for_many():
    stems = [f"Case {number}?" for number in range(30)]
    shared = shared_stems({"a": questions("a", *stems), "b": questions("b", *reversed(stems))})["a and b"]
    assert (shared.num_stems, len(shared.examples)) == (30, 10)
    assert str(shared) == "30 (a-0 = b-29, a-1 = b-28, a-2 = b-27, …)"


def test_where_nothing_is_shared_there_is_nothing_to_show():
    assert str(shared_stems(SETS)["train and test"]) == "0"
