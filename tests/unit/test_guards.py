"""Which policies are rejected, by which rule, and what the run says of it."""

from typing import Any

import pytest

from medcritical_ray.config import Config, GuardsConfig
from medcritical_ray.guards import Rejection, judge_evaluation, judge_training
from medcritical_ray.statistics import PairedComparison

NO_DIFFERENCE = PairedComparison(num_questions=100, both=50, only_a=10, only_b=10, p_value=1.0)
WORSE = PairedComparison(num_questions=100, both=50, only_a=20, only_b=5, p_value=0.004)


def held_out(before: float, after: float, **others: float | None) -> dict[str, Any]:
    figures = {"loss": 0.6, "margin": 1.0}
    return {
        "held_out": {
            "before": {**figures, "chosen_logp_per_token": before},
            "after": {**figures, "chosen_logp_per_token": after, **others},
        }
    }


def finished(share: float) -> dict[str, Any]:
    return {"finish_rate": {"value": share}}


def judged(
    before: float, after: float, comparison: PairedComparison = NO_DIFFERENCE, **parts: dict[str, Any]
) -> Rejection | None:
    return judge_evaluation(finished(before), finished(after), comparison, Config.model_validate(parts))


def test_chosen_texts_that_became_less_likely_by_more_than_the_bound_reject_a_policy():
    rejection = judge_training(held_out(-0.5, -1.75), GuardsConfig(max_chosen_logp_drop=1.0))
    assert rejection is not None
    assert rejection.rule == "chosen less likely"
    assert rejection.figures == {"before": -0.5, "after": -1.75, "max_chosen_logp_drop": 1.0}
    assert rejection.why == (
        "the log-probability of chosen held-out texts fell from -0.50 to -1.75 nats per token, by more than "
        "guards.max_chosen_logp_drop = 1"
    )


@pytest.mark.parametrize(("before", "after"), [(-1.0, -2.0), (-0.5, -1.25), (-1.0, -0.2)])
def test_chosen_texts_within_the_bound_reject_nothing(before: float, after: float):
    assert judge_training(held_out(before, after), GuardsConfig(max_chosen_logp_drop=1.0)) is None


def test_any_drop_is_taken_where_there_is_no_bound():
    assert judge_training(held_out(-0.5, -50.0), GuardsConfig(max_chosen_logp_drop=None)) is None
    assert judged(1.0, 0.0, guards={"max_finish_rate_drop": None}) is None


@pytest.mark.parametrize("trained", [{}, {"held_out": {"before": None, "after": None}}])
def test_without_held_out_pairs_nothing_is_said_of_their_texts(trained: dict[str, Any]):
    assert judge_training(trained, GuardsConfig()) is None


def test_a_training_that_diverged_rejects_its_policy_in_its_own_words():
    rejection = judge_training({"diverged": "dpo: at step 3 the loss is nan"}, GuardsConfig())
    assert rejection == Rejection(rule="not finite", figures={}, why="dpo: at step 3 the loss is nan")


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_held_out_figures_that_are_not_finite_reject_a_policy(loss: float | None):
    rejection = judge_training(held_out(-0.5, -0.5, loss=loss), GuardsConfig())
    assert rejection is not None
    assert rejection.rule == "not finite"


def test_answers_that_no_longer_end_reject_a_policy_that_is_no_worse_by_accuracy():
    rejection = judged(0.97, 0.85)
    assert rejection is not None
    assert rejection.rule == "answers unfinished"
    assert rejection.figures == {"before": 0.97, "after": 0.85, "max_finish_rate_drop": 0.1}
    assert rejection.why == (
        "finished answers on dev fell from 97.0 to 85.0 %, by more than guards.max_finish_rate_drop = 0.1"
    )


def test_a_few_answers_more_that_do_not_end_reject_nothing():
    # The largest drop from one policy to the next in the runs of the study was 2.7 points.
    assert judged(0.99, 0.9633) is None
    assert judged(0.9, 1.0) is None


def test_a_policy_worse_on_dev_at_the_level_is_rejected_with_its_figures():
    rejection = judged(1.0, 1.0, WORSE)
    assert rejection is not None
    assert rejection.rule == "worse on dev"
    assert rejection.figures == {"gain": -0.15, "p_value": 0.004, "accept_p_value": 0.05}
    assert judged(1.0, 1.0, WORSE, evaluate={"accept_p_value": 0.001}) is None


def test_a_better_policy_is_not_rejected_however_sure_that_is():
    better = PairedComparison(num_questions=100, both=50, only_a=5, only_b=20, p_value=0.004)
    assert judged(1.0, 1.0, better) is None
