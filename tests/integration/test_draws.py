"""Tokens drawn from one number each."""

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from medcritical_ray.config import SamplingConfig
from medcritical_ray.engines.draws import Draws, drawn, drawn_with, uniforms

LOGITS = torch.tensor([2.0, -1.0, 0.5, -torch.inf, 1.5, 0.0])
NUM_DRAWS = 100_000
LIKELY = 20.5
"""Chi squared of four degrees of freedom is larger once in 2,500 times."""


def counts_of(temperature: float = 1.0, top_p: float = 1.0) -> torch.Tensor:
    numbers = uniforms(range(NUM_DRAWS), [7] * NUM_DRAWS)
    rows = LOGITS.expand(NUM_DRAWS, -1)
    tokens = drawn(rows, numbers, torch.full((NUM_DRAWS,), temperature), torch.full((NUM_DRAWS,), top_p))
    return torch.bincount(tokens, minlength=len(LOGITS))


def chi_squared(counts: torch.Tensor, shares: torch.Tensor) -> float:
    expected = NUM_DRAWS * shares[shares > 0]
    return float(((counts[shares > 0] - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float):
    counts, shares = counts_of(temperature), (LOGITS / temperature).softmax(dim=0)
    assert counts[3] == 0
    assert chi_squared(counts, shares) < LIKELY


def test_of_a_mass_below_one_only_the_likeliest_tokens_are_drawn():
    """Of 0.50, 0.30 and 0.11, the first two are 0.8 together."""
    counts = counts_of(top_p=0.75)
    shares = LOGITS[[0, 4]].softmax(dim=0)
    assert counts.nonzero().flatten().tolist() == [0, 4]
    assert chi_squared(counts[[0, 4]], shares) < LIKELY


@pytest.mark.parametrize(
    ("seeds", "places"), [(range(NUM_DRAWS), [0] * NUM_DRAWS), ([2**31 - 1] * NUM_DRAWS, range(NUM_DRAWS))]
)
def test_numbers_are_spread_evenly_whether_seeds_or_places_follow_each_other(seeds: list[int], places: list[int]):
    numbers = uniforms(seeds, places).numpy()
    assert 0 <= numbers.min() < numbers.max() < 1
    assert len(np.unique(numbers)) == NUM_DRAWS
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    assert ((counts - NUM_DRAWS / 100) ** 2 / (NUM_DRAWS / 100)).sum() < 160  # of 99 degrees of freedom
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.015


def test_a_draw_depends_on_its_own_row_alone():
    torch.manual_seed(0)
    logits, numbers = torch.randn(50, 300), uniforms(range(50), [3] * 50)
    ones = torch.ones(50)
    together = drawn(logits, numbers, ones, ones)
    alone = [drawn(logits[[row]], numbers[[row]], ones[:1], ones[:1]).item() for row in range(50)]
    assert together.tolist() == alone


def test_each_request_has_the_temperature_and_the_mass_of_its_own():
    numbers = uniforms([3, 3, 3], [0, 0, 0])
    temperatures, top_ps = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 1.0, 1e-4])
    together = drawn(LOGITS.expand(3, -1), numbers, temperatures, top_ps)
    alone = [drawn(LOGITS[None], numbers[[i]], temperatures[[i]], top_ps[[i]]).item() for i in range(3)]
    assert together.tolist() == alone
    assert alone[2] == LOGITS.argmax()


def test_two_requests_that_change_places_change_their_draws_with_them():
    draws = Draws(None, torch.device("cpu"), False)  # type: ignore[arg-type]  # it looks at none of them
    params = [SamplingParams(**drawn_with(seed, SamplingConfig(temperature=1.0))) for seed in (5, 9)]
    added = [(row, each, None, []) for row, each in enumerate(params)]
    draws.update_state(BatchUpdate(batch_size=2, removed=[], added=added, moved=[]))  # type: ignore[arg-type]
    logits = torch.randn(2, 40)
    before = draws.apply(logits.clone())
    draws.update_state(BatchUpdate(batch_size=2, removed=[], added=[], moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert draws.apply(logits[[1, 0]].clone()).equal(before[[1, 0]])


def test_requests_keep_their_draws_when_they_move_in_the_batch_and_others_are_left_alone():
    """One decodes greedily; one leaves, and another takes its row."""
    draws = Draws(None, torch.device("cpu"), False)  # type: ignore[arg-type]  # it looks at none of them
    written: list[list[int]] = [[], [], []]
    sampling = SamplingConfig(temperature=1.0)
    told = (drawn_with(5, sampling), {"temperature": 0.0}, drawn_with(9, sampling))
    params = [SamplingParams(**each) for each in told]
    added = [(row, params[row], None, written[row]) for row in range(3)]
    draws.update_state(BatchUpdate(batch_size=3, removed=[], added=added, moved=[]))  # type: ignore[arg-type]
    logits = torch.randn(3, 40)
    first = draws.apply(logits.clone())
    assert first[1].equal(logits[1])
    assert (first[[0, 2]] > -torch.inf).sum(dim=1).tolist() == [1, 1]

    move = (2, 0, MoveDirectionality.UNIDIRECTIONAL)
    draws.update_state(BatchUpdate(batch_size=2, removed=[0], added=[], moved=[move]))
    moved = draws.apply(logits[[2, 1]].clone())
    assert moved[0].equal(first[2])
    assert moved[1].equal(logits[1])

    written[2].append(1)
    assert uniforms([9], [0]) != uniforms([9], [1])
    again = draws.apply(logits[[2, 1]].clone())
    expected = drawn(logits[[2]], uniforms([9], [1]), torch.ones(1), torch.ones(1))
    assert again[0].argmax() == expected


def test_greedy_requests_are_left_to_vllm():
    assert drawn_with(3, SamplingConfig(temperature=0)) == {"temperature": 0.0}
