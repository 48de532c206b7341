"""What every phase of a run works with, and how phases are carried out once."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from medcritical_ray.config import Config, SamplingConfig
from medcritical_ray.errors import MedCriticalError, RunFailed, UserError
from medcritical_ray.out_of_memory import memory_remedy, words_of
from medcritical_ray.phases import iteration_name
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.rollouts import Completion, Request
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.teaching.reviews import Reviewer
from medcritical_ray.teaching.teachers import Teacher

Role = Literal["generator", "corrector"]

AskedBlock = tuple[int, list[Request]]
WrittenBlock = tuple[int, list[Completion]]
"""What is asked of a block, and what is answered, by the block's number."""

OnStep = Callable[[dict[str, float]], None]
"""Who is shown the metrics of each training step, `step` and `num_steps` among them."""

BASE_VERSION = -2
"""The version that engines serve the untrained student as."""
DRAFT_VERSION = -1
"""The version that engines serve the first of stage 1's two SFT students as: the one whose mistakes are corrected."""
TEACHER_VERSION = -3
"""The version of what a teacher wrote."""


class Team(Protocol):
    """Those who do the heavy work: engines that write, and workers that train."""

    @property
    def plays_apart(self) -> bool:
        """Whether each role has engines of its own, so that both may write at the same time."""
        ...

    def serve(self, role: Role, version: int, policy_dir: Path) -> None:
        """Returns when the role serves the policy as that version; an engine that comes later confirms it first."""
        ...

    def is_free(self, role: Role) -> bool:
        """Whether the role's engines write nothing, nor help those of the other role."""
        ...

    def write(
        self,
        role: Role,
        version: int,
        blocks: Iterable[AskedBlock | None],
        sampling: SamplingConfig,
        *,
        wants_help: Callable[[], bool],
    ) -> Iterator[WrittenBlock | None]:
        """Yields the completions of each block, in the order of the blocks; all are by the policy of that version,
        which the role must serve. None among the blocks says that the next is not known yet, None among the
        completions that there are none for now. While it is wanted, engines of the other role may help."""
        ...

    def train_sft(self, start: Path, demonstrations: Path, out: Path, *, name: str, on_step: OnStep) -> dict[str, Any]:
        """Leaves the policy that comes of SFT in `out` and returns the training's metrics."""
        ...

    def train_dpo(
        self, policy: Path, reference: Path, pairs: Path, out: Path, *, name: str, on_step: OnStep
    ) -> dict[str, Any]:
        """Leaves the policy that comes of DPO in `out` and returns the training's metrics. Raises Diverged."""
        ...


class Progress(Protocol):
    """Who is told how far a run is."""

    def start_phase(self, iteration: int, phase: str) -> None: ...

    def finish_phase(self, iteration: int, phase: str, seconds: float, result: dict[str, Any]) -> None: ...

    def advance(self, label: str, done: int, total: int) -> None: ...

    def step(self, iteration: int, phase: str, metrics: dict[str, float]) -> None:
        """One training step of the phase is done; `metrics` has `step` and `num_steps`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Session:
    """What having policies write takes: the config, a team, and somebody to tell."""

    config: Config
    team: Team
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Game(Session):
    """One run in progress. `right_line_by_line` judges a trace where the truth is known; it only ever measures.

    The teacher writes templates and corrects made-up mistakes; the reviewer, who may be the same, corrects what
    policies wrote.
    """

    run: RunDirectory
    teacher: Teacher
    reviewer: Reviewer
    student: Path
    train: QuestionSet
    dev: QuestionSet
    test: QuestionSet
    resume_command: str
    right_line_by_line: Callable[[str, str], bool] | None = None

    def once(
        self,
        iteration: int,
        phase: str,
        work: Callable[[], dict[str, Any]],
        reads: Sequence[str] = (),
        ahead: Sequence[Path] = (),
    ) -> dict[str, Any]:
        """The result of a phase: carried out now, or read back if an earlier process has done it.

        What the phases that it `reads` left is compared with its hashes first. Directories that a later phase has begun
        to fill are `ahead`: it is that phase which leaves them. Raises RunFailed with the phase, the
        cause and the command that resumes the run; where something is the user's to mend, UserError with the same.
        """
        if self.run.done(iteration, phase):
            return self.run.result(iteration, phase)
        self.progress.start_phase(iteration, phase)
        started = time.monotonic()
        try:
            for earlier in reads:
                self.run.check_left(iteration, earlier)
            result = work()
            seconds = time.monotonic() - started
            result = {**result, "seconds": seconds}
            self.run.mark_done(iteration, phase, result, ahead=ahead)
        except Exception as error:
            with suppress(OSError):  # the disk may be what failed
                self.run.append_event("phase failed", iteration=iteration, phase=phase, cause=repr(error))
            raise self._failure(iteration, phase, error) from error
        self.progress.finish_phase(iteration, phase, seconds, result)
        return result

    def step_keeper(self, iteration: int, phase: str) -> OnStep:
        """Who keeps a training's steps in the run and tells how far it is: of one that starts again, those since."""

        def on_step(metrics: dict[str, float]) -> None:
            if metrics["step"] == 1:
                self.run.forget_steps(iteration, phase)
            self.run.append_step(iteration, phase, metrics)
            self.progress.step(iteration, phase, metrics)

        return on_step

    def _failure(self, iteration: int, phase: str, error: Exception) -> MedCriticalError:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = memory_remedy(words_of(error), phase)
        if remedy and remedy not in cause:
            cause = f"{cause}: {remedy}"
        message = f"{iteration_name(iteration)}, {phase}: {cause}; resume with: {self.resume_command}"
        if isinstance(error, UserError):
            return UserError(f"{message} (or start a run of another run.name, where resuming refuses the change)")
        return RunFailed(message)
