"""From one question's graded trajectories to its pairs. Everything is graded from written text, as in a run."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcritical_ray.config import PairsConfig
from medcritical_ray.pairing import PairingCounts, edit_distance, first_difference, make_pairs
from medcritical_ray.prompts import correction_prompt, solve_prompt
from medcritical_ray.records import PreferencePair, Question, Trajectory, lettered
from medcritical_ray.rollouts import Completion, Turn

QUESTION = Question(
    id="q1",
    source="hand",
    stem="What helps a patient with fever and cough?",
    options=lettered(["rest", "fluids", "amoxicillin", "aspirin"]),
    key="C",
)
WRONG = "Thought: name it.\nStep 1: it is pneumonia.\nStep 2: it is treated with aspirin.\nAnswer: aspirin (D)"
RIGHT = "Thought: name it.\nStep 1: it is pneumonia.\nStep 2: it is treated with amoxicillin.\nAnswer: amoxicillin (C)"
REPAIR = "Check: step 2 is wrong: not so.\nStep 2: it is treated with amoxicillin.\nAnswer: amoxicillin (C)"
FAILED_REPAIR = "Check: step 2 is wrong: not so.\nStep 2: it is treated with fluids.\nAnswer: fluids (B)"
KEEP = "Check: every step is right."
BREAK = "Check: step 2 is wrong: not so.\nStep 2: it is treated with rest.\nAnswer: rest (A)"

CORRECTION = PairsConfig(shares={"correction": 1.0}, mode="trajectory", min_agreement=1, min_edit_distance_chars=1)
OWN = CORRECTION.model_copy(update={"shares": {"own": 1.0}})
REPAIRS = CORRECTION.model_copy(update={"shares": {"repair": 1.0}})
BY_STEPS = CORRECTION.model_copy(update={"agree_on": "steps", "min_agreement": 2})
KEEPS = CORRECTION.model_copy(update={"shares": {"keep": 1.0}})


def written(
    task: str, number: int, sample: int, output: str, attempt: str = "", *, finished: bool = True
) -> Trajectory:
    """Corrections are by version 4, attempts by version 3."""
    turn = Turn(question=QUESTION, iteration=4, task=task, attempt_number=number, sample=sample, attempt=attempt)
    completion = Completion(text=output, finished=finished, num_tokens=9)
    return turn.trajectory(completion, version=3 if task == "solve" else 4)


def attempts(*outputs: str) -> list[Trajectory]:
    return [written("solve", number, 0, output) for number, output in enumerate(outputs)]


def repairs(*outputs: str, number: int = 0) -> list[Trajectory]:
    return [written("repair", number, sample, output, WRONG) for sample, output in enumerate(outputs)]


def checks(*outputs: str, number: int = 0) -> list[Trajectory]:
    return [written("check", number, sample, output, RIGHT) for sample, output in enumerate(outputs)]


def paired(trajectories: list[Trajectory], config: PairsConfig) -> tuple[list[PreferencePair], dict[str, int]]:
    """The pairs, and the drops that are not zero."""
    counts = PairingCounts()
    pairs = make_pairs(QUESTION, trajectories, config, counts)
    return pairs, {reason: num for reason, num in counts.drops.items() if num}


def test_a_right_correction_of_a_wrong_attempt_becomes_a_pair_and_exactly_that_pair_is_compared():
    pairs, drops = paired([*attempts(WRONG), *repairs(REPAIR)], CORRECTION)
    assert pairs == [
        PreferencePair(
            iteration=4,
            question_id="q1",
            source="correction",
            attempt=0,
            prompt=solve_prompt(QUESTION.unkeyed()),
            prefix="",
            chosen=(
                "Thought: name it.\nStep 1: it is pneumonia.\n"
                "Step 2: it is treated with amoxicillin.\nAnswer: amoxicillin (C)"
            ),
            rejected=(
                "Thought: name it.\nStep 1: it is pneumonia.\nStep 2: it is treated with aspirin.\nAnswer: aspirin (D)"
            ),
            rest="",
            chosen_version=4,
            rejected_version=3,
            reason="1 of 1 repairs reach the key",
        )
    ]
    assert drops == {}


def test_each_wrong_attempt_is_paired_with_its_own_repair():
    other_wrong = WRONG.replace("pneumonia", "bronchitis")
    other_repair = written("repair", 1, 0, REPAIR, other_wrong)
    pairs, _ = paired([*attempts(WRONG, other_wrong), *repairs(REPAIR), other_repair], CORRECTION)
    assert [(pair.chosen.splitlines()[1], pair.rejected.splitlines()[1]) for pair in pairs] == [
        ("Step 1: it is pneumonia.", "Step 1: it is pneumonia."),
        ("Step 1: it is bronchitis.", "Step 1: it is bronchitis."),
    ]


def test_a_repair_that_misses_the_key_is_never_chosen():
    assert paired([*attempts(WRONG), *repairs(FAILED_REPAIR)], CORRECTION) == (
        [],
        {"correction: no repair reaches the key": 1},
    )


def test_a_truncated_correction_is_never_chosen():
    truncated = written("repair", 0, 0, REPAIR, WRONG, finished=False)
    assert paired([*attempts(WRONG), truncated], CORRECTION) == ([], {"correction: no repair reaches the key": 1})


@pytest.mark.parametrize(
    "output",
    [
        "Answer: amoxicillin (C)",
        "Check: step 9 is wrong: no.\nStep 9: so.\nAnswer: amoxicillin (C)",
        REPAIR + "\nI am sure.",
    ],
)
def test_an_unparsed_correction_is_never_chosen(output: str):
    assert paired([*attempts(WRONG), *repairs(output)], CORRECTION) == (
        [],
        {"correction: no repair reaches the key": 1},
    )


def test_a_truncated_right_attempt_is_never_chosen():
    truncated = written("solve", 1, 0, RIGHT, finished=False)
    assert paired([*attempts(WRONG), truncated], OWN) == (
        [],
        {"own: no right attempt": 2},
    )


def test_an_unfinished_or_unreadable_attempt_may_be_rejected_but_is_shown_to_no_corrector():
    truncated = written("solve", 0, 0, WRONG, finished=False)
    trajectories = [truncated, *attempts(RIGHT), *repairs(REPAIR)]
    [pair], _ = paired(trajectories, OWN)
    assert (pair.chosen, pair.rejected) == (RIGHT, WRONG.removesuffix("Answer: aspirin (D)"))
    assert paired(trajectories, CORRECTION)[1]["correction: attempt unfinished or unreadable"] == 1


def test_a_right_text_that_was_cut_off_is_no_worse_than_itself():
    truncated = written("solve", 0, 0, RIGHT, finished=False)
    assert paired([truncated, *attempts(RIGHT)], OWN) == ([], {"own: texts too alike": 1})


def test_too_few_agreeing_repairs_are_dropped_and_counted():
    config = CORRECTION.model_copy(update={"min_agreement": 2})
    trajectories = [*attempts(WRONG), *repairs(REPAIR, FAILED_REPAIR, FAILED_REPAIR)]
    assert paired(trajectories, config) == ([], {"correction: too few repairs agree": 1})
    pairs, drops = paired([*trajectories, *repairs(REPAIR)], config)
    assert [pair.reason for pair in pairs] == ["2 of 4 repairs reach the key"]
    assert drops == {}


def test_the_repair_whose_steps_most_others_share_is_chosen():
    odd = REPAIR.replace("treated with amoxicillin", "cured by amoxicillin")
    pairs, _ = paired([*attempts(WRONG), *repairs(odd, REPAIR, REPAIR)], CORRECTION)
    assert [pair.chosen for pair in pairs] == [RIGHT]


def test_where_tries_agree_on_the_steps_another_attempts_repair_is_a_witness_and_is_shared():
    trajectories = [*attempts(WRONG, WRONG, WRONG), *repairs(REPAIR), *repairs(REPAIR, FAILED_REPAIR, number=1)]
    assert paired(trajectories, CORRECTION.model_copy(update={"min_agreement": 2}))[0] == []
    pairs, drops = paired(trajectories, BY_STEPS)
    assert [pair.chosen for pair in pairs] == [RIGHT, RIGHT]
    assert pairs[0].reason == "2 tries agree on the steps"
    assert drops == {"correction: over the limit per question": 1}


def test_where_tries_agree_on_the_steps_a_right_attempt_is_a_witness_but_never_the_correction():
    assert len(paired([*attempts(WRONG, RIGHT), *repairs(REPAIR)], BY_STEPS)[0]) == 1
    assert paired(attempts(WRONG, RIGHT, RIGHT), BY_STEPS) == ([], {"correction: no repair reaches the key": 1})


def test_repairs_that_reach_the_key_by_other_steps_do_not_agree_on_the_steps():
    odd = REPAIR.replace("treated with amoxicillin", "cured by amoxicillin")
    trajectories = [*attempts(WRONG), *repairs(REPAIR, odd)]
    assert len(paired(trajectories, CORRECTION.model_copy(update={"min_agreement": 2}))[0]) == 1
    assert paired(trajectories, BY_STEPS) == ([], {"correction: too few repairs agree": 1})


def test_where_tries_agree_on_the_steps_a_right_attempt_needs_as_many_as_a_repair():
    config = BY_STEPS.model_copy(update={"shares": {"own": 1.0}})
    alone = attempts(WRONG, RIGHT)
    assert paired(alone, config) == ([], {"own: too few tries agree": 1})
    assert [pair.source for pair in paired([*alone, *repairs(REPAIR)], config)[0]] == ["own"]


def test_traces_without_steps_do_not_agree_on_the_steps():
    bare = "Check: the answer is wrong: no.\nAnswer: amoxicillin (C)"
    without_steps = written("solve", 0, 0, "Surely.\nAnswer: aspirin (D)")
    tries = [written("repair", 0, sample, bare, "Surely.\nAnswer: aspirin (D)") for sample in range(2)]
    assert [trajectory.correct for trajectory in tries] == [True, True]
    assert paired([without_steps, *tries], BY_STEPS) == ([], {"correction: too few repairs agree": 1})


def test_the_right_letter_beside_another_options_text_is_not_chosen():
    lucky = REPAIR.replace("amoxicillin (C)", "fluids (C)")
    assert paired([*attempts(WRONG), *repairs(lucky)], CORRECTION) == (
        [],
        {"correction: no repair reaches the key": 1},
    )
    lucky_attempt = RIGHT.replace("amoxicillin (C)", "fluids (C)")
    assert paired(attempts(WRONG, lucky_attempt), OWN) == ([], {"own: no right attempt": 1})


def test_the_right_letter_alone_is_enough_where_the_config_says_so():
    lucky = REPAIR.replace("amoxicillin (C)", "fluids (C)")
    config = CORRECTION.model_copy(update={"require_agreement_of_answer": False})
    pairs, _ = paired([*attempts(WRONG), *repairs(lucky)], config)
    assert [pair.chosen.splitlines()[-1] for pair in pairs] == ["Answer: fluids (C)"]


def test_traces_of_too_different_length_make_no_pair():
    short, long = "Step 1: it is so.\nAnswer: aspirin (D)", RIGHT
    assert (len(short), len(long)) == (37, 106)
    trajectories = attempts(short, long)
    assert len(paired(trajectories, OWN.model_copy(update={"max_length_ratio": 2.87}))[0]) == 1
    refused = paired(trajectories, OWN.model_copy(update={"max_length_ratio": 2.86}))
    assert refused == ([], {"own: lengths too different": 1})


def test_traces_that_are_too_alike_make_no_pair():
    almost = RIGHT.replace("amoxicillin (C)", "amoxicillin (B)")
    config = OWN.model_copy(update={"min_edit_distance_chars": 2})
    assert paired(attempts(almost, RIGHT), config) == ([], {"own: texts too alike": 1})
    assert len(paired(attempts(almost, RIGHT), OWN)[0]) == 1


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [("amoxicillin", "amoxicillin", 0), ("kitten", "sitting", 3), ("阿司匹林", "阿莫西林", 2)],
)
def test_the_edit_distance_counts_characters(text: str, other: str, expected: int):
    assert edit_distance(text, other, at_most=99) == expected


def test_a_question_makes_no_more_pairs_of_a_source_than_its_limit():
    config = OWN.model_copy(update={"max_pairs_per_question": 2, "shares": {"own": 0.5, "correction": 0.5}})
    others = [WRONG.replace("pneumonia", other) for other in ("bronchitis", "pleurisy", "a cold")]
    trajectories = [*attempts(WRONG, *others, RIGHT), *repairs(REPAIR)]
    pairs, drops = paired(trajectories, config)
    assert [pair.source for pair in pairs] == ["correction", "own", "own"]
    assert drops == {
        "correction: no repair reaches the key": 3,
        "own: the same pair from another source": 1,
        "own: over the limit per question": 1,
    }


def test_a_source_without_a_share_makes_no_pairs():
    config = CORRECTION.model_copy(update={"shares": {"correction": 1.0, "own": 0.0}})
    pairs, drops = paired([*attempts(WRONG, RIGHT), *repairs(REPAIR)], config)
    assert [pair.source for pair in pairs] == ["correction"]
    assert drops == {}


def test_in_step_mode_the_first_steps_that_differ_are_compared_after_the_right_ones():
    config = CORRECTION.model_copy(update={"mode": "step"})
    [pair], _ = paired([*attempts(WRONG), *repairs(REPAIR)], config)
    assert pair.prefix == "Thought: name it.\nStep 1: it is pneumonia.\n"
    assert pair.chosen == "Step 2: it is treated with amoxicillin.\n"
    assert pair.rejected == "Step 2: it is treated with aspirin.\n"
    assert pair.rest == "Answer: amoxicillin (C)"


def test_in_step_mode_the_prefix_is_in_the_words_of_the_chosen_trace():
    config = OWN.model_copy(update={"mode": "step"})
    [pair], _ = paired(attempts(WRONG, RIGHT.replace("name it", "name the illness")), config)
    assert pair.prefix == "Thought: name the illness.\nStep 1: it is pneumonia.\n"
    assert pair.chosen == "Step 2: it is treated with amoxicillin.\n"


ENDS = [["Answer: a (A)"], ["Answer: b (B)"], ["so"], []]


@st.composite
def traces(draw: st.DrawFn, ends: list[list[str]]) -> str:
    steps = [f"Step {n}: {word}" for n, word in enumerate(draw(st.lists(st.sampled_from("ab"), max_size=4)), 1)]
    return "\n".join(["Thought: t.", *steps, *draw(st.sampled_from(ends))])


@given(chosen=traces(ENDS[:1]), rejected=traces(ENDS))
def test_in_step_mode_the_parts_make_up_what_was_written(chosen: str, rejected: str):
    prefix, better, worse, rest = first_difference(chosen, rejected)
    assert prefix + better + rest == chosen
    assert worse == "" or rejected.startswith(prefix + worse)
    assert better != worse or rejected == chosen


def test_in_step_mode_the_parts_are_cut_at_any_line_breaks():
    config = OWN.model_copy(update={"mode": "step"})
    [pair], _ = paired(attempts(WRONG, RIGHT.replace("\n", "\r\n")), config)
    assert pair.prefix == "Thought: name it.\nStep 1: it is pneumonia.\n"
    assert pair.chosen == "Step 2: it is treated with amoxicillin.\n"
    assert pair.rest == "Answer: amoxicillin (C)"


def test_in_step_mode_traces_without_steps_make_no_pair():
    config = OWN.model_copy(update={"mode": "step"})
    pairs, drops = paired(attempts(f"Surely{'!' * 40}\nAnswer: aspirin (D)", RIGHT), config)
    assert pairs == []
    assert drops == {"own: no steps to compare": 1}
    assert paired(attempts("Surely.\nAnswer: aspirin (D)", RIGHT), config) == ([], {"own: lengths too different": 1})


def test_in_step_mode_a_wrong_answer_line_alone_is_compared():
    slip = RIGHT.replace("Answer: amoxicillin (C)", "Answer: aspirin (D)")
    [pair], _ = paired(attempts(slip, RIGHT), OWN.model_copy(update={"mode": "step"}))
    assert (pair.chosen, pair.rejected) == ("Answer: amoxicillin (C)", "Answer: aspirin (D)")
    assert pair.prefix.endswith("Step 2: it is treated with amoxicillin.\n")


STOPPED = "Thought: name it.\nStep 1: it is pneumonia.\nStep 2: it is aspirin."


def test_in_step_mode_an_unreadable_attempt_is_rejected_by_the_step_it_stops_at():
    [pair], _ = paired(attempts(STOPPED, RIGHT), OWN.model_copy(update={"mode": "step"}))
    assert (pair.prefix, pair.rejected) == ("Thought: name it.\nStep 1: it is pneumonia.\n", "Step 2: it is aspirin.")


def test_in_step_mode_a_text_that_was_cut_off_at_the_step_to_compare_makes_no_pair():
    truncated = written("solve", 0, 0, STOPPED, finished=False)
    assert paired([truncated, *attempts(RIGHT)], OWN.model_copy(update={"mode": "step"})) == (
        [],
        {"own: rejected text stops before it differs from the chosen one": 1},
    )


def test_in_step_mode_a_text_that_was_cut_off_later_is_rejected_by_its_wrong_step():
    truncated = written("solve", 0, 0, WRONG, finished=False)
    [pair], _ = paired([truncated, *attempts(RIGHT)], OWN.model_copy(update={"mode": "step"}))
    assert (pair.chosen, pair.rejected) == (
        "Step 2: it is treated with amoxicillin.\n",
        "Step 2: it is treated with aspirin.\n",
    )


def test_in_step_mode_stopping_after_right_steps_is_no_step_to_reject():
    stopped = RIGHT.removesuffix("\nAnswer: amoxicillin (C)")
    assert paired(attempts(stopped, RIGHT), OWN.model_copy(update={"mode": "step"})) == (
        [],
        {"own: rejected text stops before it differs from the chosen one": 1},
    )


def test_an_own_pair_prefers_a_right_attempt_to_a_wrong_one():
    [pair], drops = paired(attempts(WRONG, RIGHT), OWN)
    assert (pair.source, pair.chosen, pair.rejected) == ("own", RIGHT, WRONG)
    assert pair.prompt == solve_prompt(QUESTION.unkeyed())
    assert (pair.chosen_version, pair.rejected_version) == (3, 3)
    assert pair.reason == "1 of 2 attempts reach the key"
    assert drops == {}


def test_a_repair_pair_compares_two_repairs_of_one_attempt_under_the_correctors_prompt():
    [pair], drops = paired([*attempts(WRONG), *repairs(FAILED_REPAIR, REPAIR)], REPAIRS)
    assert (pair.source, pair.chosen, pair.rejected) == ("repair", REPAIR, FAILED_REPAIR)
    assert pair.prompt == correction_prompt(QUESTION.unkeyed(), WRONG, "repair")
    assert drops == {}


def test_a_repair_pair_needs_a_repair_that_fails():
    assert paired([*attempts(WRONG), *repairs(REPAIR, REPAIR)], REPAIRS) == ([], {"repair: no repair fails": 1})


def test_a_keep_pair_prefers_keeping_a_right_attempt_to_breaking_it():
    [pair], drops = paired([*attempts(RIGHT), *checks(BREAK, KEEP)], KEEPS)
    assert (pair.source, pair.chosen, pair.rejected) == ("keep", KEEP, BREAK)
    assert pair.prompt == correction_prompt(QUESTION.unkeyed(), RIGHT, "check")
    assert pair.reason == "1 of 2 checks keep the attempt"
    assert drops == {}


def test_corrections_written_anew_are_compared_in_the_first_step_that_differs():
    step_by_step = REPAIRS.model_copy(update={"mode": "step"})
    repaired, failed = (f"Check:\n{trace}" for trace in (RIGHT, WRONG.replace("aspirin (D)", "fluids (B)")))
    [pair], _ = paired([*attempts(WRONG), *repairs(repaired, failed)], step_by_step)
    assert pair.prefix == "Check:\nThought: name it.\nStep 1: it is pneumonia.\n"
    assert pair.chosen == "Step 2: it is treated with amoxicillin.\n"
    assert pair.rejected == "Step 2: it is treated with aspirin.\n"
    assert pair.rest == "Answer: amoxicillin (C)"


def test_corrections_of_different_forms_are_compared_as_a_whole():
    step_by_step = REPAIRS.model_copy(update={"mode": "step"})
    [pair], _ = paired([*attempts(WRONG), *repairs(f"Check:\n{RIGHT}", FAILED_REPAIR)], step_by_step)
    assert (pair.prefix, pair.chosen, pair.rejected, pair.rest) == ("", f"Check:\n{RIGHT}", FAILED_REPAIR, "")


@pytest.mark.parametrize(
    ("output", "reason"), [(KEEP, "keep: no check breaks the attempt"), (BREAK, "keep: no check keeps the attempt")]
)
def test_checks_that_agree_make_no_keep_pair(output: str, reason: str):
    assert paired([*attempts(RIGHT), *checks(output, output)], KEEPS) == ([], {reason: 1})


def test_an_attempt_that_is_right_by_a_slip_is_not_worth_keeping():
    slip = RIGHT.replace("amoxicillin (C)", "aspirin (C)")
    kept, broken = (written("check", 0, sample, output, slip) for sample, output in enumerate((KEEP, BREAK)))
    assert paired([*attempts(slip), kept, broken], KEEPS) == ([], {"keep: no check keeps the attempt": 1})


def test_checks_and_repairs_do_not_mix():
    other_wrong = WRONG.replace("pneumonia", "bronchitis")
    trajectories = [
        *attempts(WRONG, RIGHT, other_wrong),
        *repairs(REPAIR, FAILED_REPAIR),
        *checks(KEEP, BREAK, number=1),
    ]
    config = CORRECTION.model_copy(update={"shares": {"correction": 0.25, "own": 0.25, "repair": 0.25, "keep": 0.25}})
    pairs, drops = paired(trajectories, config)
    assert [pair.source for pair in pairs] == ["correction", "own", "repair", "keep"]
    assert drops == {
        "correction: no repair reaches the key": 1,
        "own: the same pair from another source": 1,
        "repair: no repair reaches the key": 1,
    }


def test_the_key_never_stands_in_a_prompt():
    other_wrong = WRONG.replace("pneumonia", "bronchitis")
    trajectories = [
        *attempts(WRONG, RIGHT, other_wrong),
        *repairs(REPAIR, FAILED_REPAIR),
        *checks(KEEP, BREAK, number=1),
    ]
    config = CORRECTION.model_copy(update={"shares": {"correction": 0.25, "own": 0.25, "repair": 0.25, "keep": 0.25}})
    pairs, _ = paired(trajectories, config)
    other_key = replace(QUESTION, key="A")
    for pair in pairs:
        assert not hasattr(QUESTION.unkeyed(), "key")
        assert pair.prompt in {
            solve_prompt(other_key.unkeyed()),
            correction_prompt(other_key.unkeyed(), WRONG, "repair"),
            correction_prompt(other_key.unkeyed(), RIGHT, "check"),
        }


def test_the_number_expected_by_guessing_is_that_of_the_binomial_distribution():
    # Three options are left to guess from. At least two of three guesses hit: 3 * (1/3)^2 * (2/3) + (1/3)^3 = 7/27.
    counts = PairingCounts()
    config = CORRECTION.model_copy(update={"min_agreement": 2})
    trajectories = [*attempts(WRONG, WRONG), *repairs(REPAIR, REPAIR, REPAIR), *repairs(*[FAILED_REPAIR] * 3, number=1)]
    make_pairs(QUESTION, trajectories, config, counts)
    assert counts.num_by_guessing == pytest.approx(14 / 27)
    assert counts.num_agreed == 1
    assert counts.pairs == {"correction": 1}


def test_where_tries_agree_on_the_steps_luck_is_told_by_those_that_agree_on_the_way_to_other_options():
    # Two of the three options that are not the attempt's are wrong, and repairs agree on the way to one of them.
    counts = PairingCounts()
    make_pairs(
        QUESTION, [*attempts(WRONG), *repairs(REPAIR, REPAIR, FAILED_REPAIR, FAILED_REPAIR, BREAK)], BY_STEPS, counts
    )
    assert counts.num_by_guessing == pytest.approx(1 / 2)
    assert counts.num_agreed == 1
