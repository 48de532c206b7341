"""What a run on disk, finished or not, says of one of its policies."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from medcritical_ray.assessment import correct_by_question
from medcritical_ray.config import Config
from medcritical_ray.files import read_json
from medcritical_ray.model_files import ADAPTER_CONFIG
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.iterations import Iteration, read_iterations
from medcritical_ray.run.policies import Policy, PolicyStore, verify_policy
from medcritical_ray.run.questions import QUESTIONS_PHASE, split_path
from medcritical_ray.run.record import RunRecord
from medcritical_ray.run.state import adopted_version, run_config
from medcritical_ray.statistics import PairedComparison, compare

Form = Literal["full", "merged", "adapter"]
"""What is exported: full weights, an adapter merged into the model below, or an adapter as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that a model card says of a policy and its run.

    `base` are the figures of the base student on test, if it was evaluated, and `iterations` stage 1 and all that the
    run is to have; `comparison` is that of the student of stage 1 (a) with the policy (b) on test, where both were
    evaluated; `sources` counts the questions by source and split; `questions` is what the run noted when it split them,
    empty if it did not; `lora_rank` is that of an adapter.
    """

    run: str
    record: RunRecord
    config: Config
    policy: Policy
    base: dict[str, Any] | None
    iterations: list[Iteration]
    is_finished: bool
    num_iterations_done: int
    comparison: PairedComparison | None
    sources: dict[str, dict[str, int]]
    questions: dict[str, Any]
    lora_rank: int | None

    @property
    def iteration(self) -> Iteration:
        """The one that the policy is of."""
        return self.iterations[self.policy.version]

    @property
    def name(self) -> str:
        return f"{self.run}-{self.policy.path.name}"


def chosen_policy(run: RunDirectory, version: int | None) -> Policy:
    """The policy of that version, or else the one that the last finished iteration adopted; its files are verified.

    Raises UserError if there is no run, no such policy, or if a file is not what was published.
    """
    if version is None:
        version = adopted_version(run)
    policy = PolicyStore(run.policies).get(version)
    verify_policy(policy.path)
    return policy


def _config(run: RunDirectory) -> Config:
    version = run.record().code_version
    return run_config(run, f"export with medcritical_ray {version} as it was when the run was made")


def facts_of(run: RunDirectory, policy: Policy) -> Facts:
    """Reads what the run has kept. Raises UserError if a file of it is damaged."""
    config = _config(run)
    iterations = read_iterations(run, config.run.num_iterations)
    iteration = iterations[policy.version]
    return Facts(
        run=run.path.resolve().name,
        record=run.record(),
        config=config,
        policy=policy,
        base=iterations[STAGE_ONE].phases.get("evaluate_base", {}).get("test"),
        iterations=iterations,
        is_finished=run.summary_file.exists(),
        num_iterations_done=sum(each.decision is not None for each in iterations[1:]),
        comparison=_comparison(run, iteration) if iteration.test and iteration.number else None,
        sources=_sources(run),
        questions=run.result(STAGE_ONE, QUESTIONS_PHASE) if run.done(STAGE_ONE, QUESTIONS_PHASE) else {},
        lora_rank=read_json(policy.path / ADAPTER_CONFIG)["r"] if policy.manifest.kind == "adapter" else None,
    )


def _comparison(run: RunDirectory, iteration: Iteration) -> PairedComparison:
    questions = QuestionSet.whole(split_path(run, "test"))
    places = (run.iteration(number) / "evaluation" / "test" for number in (STAGE_ONE, iteration.number))
    return compare(*(correct_by_question(questions, place) for place in places))


def _sources(run: RunDirectory) -> dict[str, dict[str, int]]:
    counts = {split: _sources_in(split_path(run, split)) for split in ("train", "dev", "test")}
    names = sorted(set().union(*counts.values()))
    return {name: {split: counts[split][name] for split in counts} for name in names}


def _sources_in(path: Path) -> Counter[str]:
    return Counter(pq.read_table(path, columns=["source"])["source"].to_pylist()) if path.exists() else Counter()
