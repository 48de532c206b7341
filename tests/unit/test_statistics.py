import pytest

from medcritical_ray.errors import UserError
from medcritical_ray.statistics import (
    Mean,
    Proportion,
    answer_entropy_bits,
    compare,
    gain_over_seeds,
    mcnemar_exact,
    pass_at_k,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_that_newcombe_published(k: int, n: int, low: float, high: float):
    """Table I, method 3, of Newcombe (1998), Statistics in Medicine 17:857-872."""
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_nothing_tried_is_everything():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_exact_mcnemar_test_gives_the_published_p_value():
    """The first example of Fagerland, Lydersen and Laake (2013), BMC Medical Research Methodology 13:91."""
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar_exact(7, 1) == mcnemar_exact(1, 7)


def test_policies_that_never_differ_are_not_told_apart():
    assert mcnemar_exact(0, 0) == 1.0


def test_pass_at_k_is_the_chance_that_a_draw_of_k_holds_a_right_one():
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)  # one of the ten draws of three has only wrong ones
    assert pass_at_k(4, 1, 1) == pytest.approx(0.25)
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 1, 4) == 1.0


def test_pass_at_more_than_was_sampled_is_refused():
    with pytest.raises(ValueError, match="pass@5 cannot be estimated from 1 right of 4 samples"):
        pass_at_k(4, 1, 5)


def test_a_proportion_is_written_with_its_interval_and_count():
    assert str(Proportion(573, 1000)) == "57.3 % [54.2, 60.3] (n=1,000)"


def test_a_proportion_becomes_plain_values():
    values = Proportion(15, 148).to_dict()
    assert values == {
        "k": 15,
        "n": 148,
        "value": 15 / 148,
        "low": pytest.approx(0.06239, abs=5e-6),
        "high": pytest.approx(0.16049, abs=5e-6),
    }


def test_none_of_none_has_the_value_zero_and_the_widest_interval():
    assert str(Proportion(0, 0)) == "0.0 % [0.0, 100.0] (n=0)"


def test_more_than_all_is_no_proportion():
    with pytest.raises(ValueError, match="3 of 2 is no proportion"):
        Proportion(3, 2)


def test_entropy_counts_bits():
    assert answer_entropy_bits({"A": 2, "B": 2}) == pytest.approx(1.0)
    assert answer_entropy_bits({"A": 4}) == 0.0
    assert answer_entropy_bits({}) == 0.0


def test_two_policies_are_compared_question_by_question():
    a = {"q1": True, "q2": True, "q3": False, "q4": False, "q5": False}
    b = {"q5": True, "q4": True, "q3": True, "q2": False, "q1": True}
    comparison = compare(a, b)
    assert (comparison.both, comparison.only_a, comparison.only_b) == (1, 1, 3)
    assert comparison.gain == pytest.approx(0.4)
    assert comparison.p_value == pytest.approx(0.625)  # (1 + 4) / 16, twice
    assert comparison.to_dict()["gain"] == comparison.gain


def test_policies_with_other_questions_are_not_compared():
    with pytest.raises(UserError, match="2 and 1 given, 1 in common"):
        compare({"q1": True, "q2": True}, {"q1": True})


def test_policies_without_questions_are_not_compared():
    with pytest.raises(UserError, match="0 and 0 given"):
        compare({}, {})


def test_the_gain_over_seeds_takes_a_question_with_all_its_seeds_for_one_item():
    weak = {f"q{n}": n % 2 == 0 for n in range(60)}
    strong = {question: right or int(question[1:]) < 20 for question, right in weak.items()}
    once, thrice = gain_over_seeds([weak], [strong]), gain_over_seeds([weak] * 3, [strong] * 3)
    assert once.gain == thrice.gain == pytest.approx(10 / 60)
    assert once.p_value == pytest.approx(thrice.p_value, abs=0.003)  # the same answers again are no new evidence
    assert once.p_value < 0.01
    assert gain_over_seeds([strong], [weak]).gain == pytest.approx(-10 / 60)
    assert gain_over_seeds([weak], [weak]).p_value == 1.0


def test_the_interval_of_a_mean_of_samples_stays_within_zero_and_one():
    few = Mean.of_samples([0.25, 0.0, 0.0], 4)
    assert (few.value, few.n) == (pytest.approx(1 / 12), 3)
    assert (few.low, few.high) == (pytest.approx(0.0041, abs=5e-5), pytest.approx(0.6685, abs=1e-3))
    for shares in ([0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.75]):
        mean = Mean.of_samples(shares, 4)
        assert 0.0 <= mean.low <= mean.value <= mean.high <= 1.0
        assert mean.low < mean.high
    assert (Mean.of_samples([0.5], 4).low, Mean.of_samples([0.5], 4).high) == (0.0, 1.0)
    assert (Mean.of([0.9, 1.0]).high, Mean.of([0.0, 0.1]).low) == (1.0, 0.0)


def test_with_one_sample_of_each_of_many_questions_it_is_wilson_s():
    mean = Mean.of_samples([1.0] * 600 + [0.0] * 400, 1)
    assert (mean.low, mean.high) == pytest.approx(wilson_interval(600, 1000), abs=1e-4)


def test_samples_of_one_question_that_agree_tell_no_more_than_one():
    shares = [1.0] * 6 + [0.0] * 4
    assert Mean.of_samples(shares, 8).to_dict() == pytest.approx(Mean.of_samples(shares, 1).to_dict())
