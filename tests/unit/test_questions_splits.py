import pytest

from medcritical_ray.errors import UserError
from medcritical_ray.questions import normalised_stem, shared_stems, split_questions
from medcritical_ray.records import Question, lettered


def question(number: int, stem: str) -> Question:
    return Question(id=f"q{number}", source="ward", stem=stem, options=lettered(["yes", "no"]), key="A")


def questions(*stems: str) -> list[Question]:
    return [question(number, stem) for number, stem in enumerate(stems)]


THIRTY = questions(*(f"Case {i}?" for i in range(30)))
TWINS = questions(*(f"Case {i // 2}{'?' * (i % 2)}" for i in range(40)))
"""Twenty stems, each of them twice."""


@pytest.mark.parametrize(
    ("stem", "normalised"),
    [
        ("Which, of these?", "whichofthese"),
        ("患者，女，２０岁。 首先考虑（ ）", "患者女20岁首先考虑"),
        ("ＰＨ\u3000ﬁve\u200b", "phfive"),
        ("p < 0.05", "p<005"),
    ],
)
def test_a_normalised_stem_has_no_spacing_punctuation_width_or_case(stem: str, normalised: str):
    assert normalised_stem(stem) == normalised


def test_splits_have_the_sizes_asked_for_and_share_no_question():
    splits = split_questions(THIRTY, num_train=20, num_dev=4, num_test=6, seed=0)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (20, 4, 6)
    assert len({question.id for split in splits.by_name().values() for question in split}) == 30


@pytest.mark.parametrize("seed", range(5))
def test_no_stem_stands_in_two_splits(seed: int):
    splits = split_questions(TWINS, num_train=21, num_dev=5, num_test=7, seed=seed)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (21, 5, 7)
    assert {stems.num_stems for stems in shared_stems(splits.by_name()).values()} == {0}


def test_a_seed_draws_the_same_splits_again_and_another_seed_others():
    first = split_questions(THIRTY, num_train=10, num_dev=5, num_test=5, seed=1)
    assert split_questions(iter(THIRTY), num_train=10, num_dev=5, num_test=5, seed=1) == first
    assert split_questions(THIRTY, num_train=10, num_dev=5, num_test=5, seed=2) != first


def test_more_training_questions_leave_dev_and_test_as_they_are():
    few = split_questions(TWINS, num_train=3, num_dev=5, num_test=7, seed=0)
    many = split_questions(TWINS, num_train=20, num_dev=5, num_test=7, seed=0)
    assert (few.dev, few.test, few.train) == (many.dev, many.test, many.train[:3])


def test_too_few_questions_are_the_user_s_error():
    with pytest.raises(UserError, match=r"need 31 questions .* only 30 questions with 30 different stems: lower them"):
        split_questions(THIRTY, num_train=20, num_dev=5, num_test=6, seed=0)
    with pytest.raises(UserError) as caught:
        split_questions(THIRTY, num_train=40, num_dev=0, num_test=0, seed=0)
    told = "questions.num_train = 40: there are only 30 questions for it: lower it or give more questions"
    assert str(caught.value) == told
