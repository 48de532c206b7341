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
from medcritical_ray.phases import round_name
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.policies import Policy, PolicyStore, verify_policy
from medcritical_ray.run.questions import QUESTIONS_PHASE, split_path
from medcritical_ray.run.record import RunRecord
from medcritical_ray.run.state import adopted_version, run_config
from medcritical_ray.statistics import PairedComparison, compare

Form = Literal["full", "merged", "adapter"]
"""What is exported: full weights, an adapter merged into the model below, or an adapter as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """The policy of one stage of a run: its figures on test, and whether the run adopted it.

    `version` is None for the base student, `test` for a policy that is not evaluated or does not exist, and
    `is_adopted` as long as that is not decided. `rejected` is why a policy was not adopted.
    """

    name: str
    version: int | None
    test: dict[str, Any] | None
    is_adopted: bool | None
    rejected: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that a model card says of a policy and its run.

    `comparison` is that of the student of stage 1 (a) with the policy (b) on test, where both were evaluated;
    `sources` counts the questions by source and split; `questions` is what the run noted when it split them, empty if
    it did not; `lora_rank` is that of an adapter.
    """

    run: str
    record: RunRecord
    config: Config
    policy: Policy
    stages: list[Stage]
    is_finished: bool
    num_iterations_done: int
    comparison: PairedComparison | None
    sources: dict[str, dict[str, int]]
    questions: dict[str, Any]
    lora_rank: int | None

    @property
    def stage(self) -> Stage:
        return self.stages[self.policy.version + 1]

    @property
    def latest_adopted(self) -> Stage | None:
        """None before stage 1 is over."""
        return next((stage for stage in reversed(self.stages) if stage.is_adopted), None)

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
    stages = _stages(run, config.run.num_iterations)
    return Facts(
        run=run.path.resolve().name,
        record=run.record(),
        config=config,
        policy=policy,
        stages=stages,
        is_finished=run.summary_file.exists(),
        num_iterations_done=sum(run.is_finished(number) for number in range(1, config.run.num_iterations + 1)),
        comparison=_comparison(run, stages, policy.version),
        sources=_sources(run),
        questions=run.result(STAGE_ONE, QUESTIONS_PHASE) if run.done(STAGE_ONE, QUESTIONS_PHASE) else {},
        lora_rank=read_json(policy.path / ADAPTER_CONFIG)["r"] if policy.manifest.kind == "adapter" else None,
    )


def _stages(run: RunDirectory, num_iterations: int) -> list[Stage]:
    stages = [Stage(name="base", version=None, test=_test(run, STAGE_ONE, "evaluate_base"), is_adopted=None)]
    for number in range(num_iterations + 1):
        metrics = run.metrics(number) if run.is_finished(number) else {}
        stages.append(
            Stage(
                name=round_name(number),
                version=number,
                test=_test(run, number, "evaluate"),
                is_adopted=metrics["adopted_version"] == number if metrics else None,
                rejected=(metrics.get("rejected") or {}).get("why", ""),
            )
        )
    return stages


def _test(run: RunDirectory, iteration: int, phase: str) -> dict[str, Any] | None:
    return run.result(iteration, phase)["test"] if run.done(iteration, phase) else None


def _comparison(run: RunDirectory, stages: list[Stage], version: int) -> PairedComparison | None:
    if version == STAGE_ONE or not stages[version + 1].test:
        return None
    questions = QuestionSet.whole(split_path(run, "test"), block_size=200)
    before, after = (
        correct_by_question(questions, run.iteration(number) / "evaluation" / "test") for number in (STAGE_ONE, version)
    )
    return compare(before, after)


def _sources(run: RunDirectory) -> dict[str, dict[str, int]]:
    counts = {split: _sources_in(split_path(run, split)) for split in ("train", "dev", "test")}
    names = sorted(set().union(*counts.values()))
    return {name: {split: counts[split][name] for split in counts} for name in names}


def _sources_in(path: Path) -> Counter[str]:
    return Counter(pq.read_table(path, columns=["source"])["source"].to_pylist()) if path.exists() else Counter()
