"""Opens a run: everything that can be wrong with config, questions and student is found before anything is written, and
what files alone tell before anything heavy is imported."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path

from medcritical_ray.config import Config
from medcritical_ray.context import check_context, longest_prompt_tokens
from medcritical_ray.errors import UserError, told_by_key
from medcritical_ray.game import Progress
from medcritical_ray.model_files import ModelSize, check_model, size_by_config
from medcritical_ray.records import Question
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.input_files import check_files
from medcritical_ray.run.lock import new_lock
from medcritical_ray.run.questions import QUESTIONS_PHASE, PreparedQuestions, prepare_questions, write_prepared
from medcritical_ray.run.record import record_of
from medcritical_ray.stage_one import CORRECT_PHASE
from medcritical_ray.store.locations import runs_root
from medcritical_ray.store.mirror import Mirror, mirror_of
from medcritical_ray.student import given_student_dir, make_fresh_student
from medcritical_ray.teaching.configured import make_teacher
from medcritical_ray.teaching.distilled import RESPONSES
from medcritical_ray.teaching.reviews import Reviewer
from medcritical_ray.teaching.teachers import Teacher, verified_template


def run_path(config: Config) -> Path:
    """Absolute, since the run's actors and workers have working directories of their own; of a run in an object store,
    its working copy."""
    return runs_root(config.run.directory) / config.run.name


def student_size(config: Config) -> ModelSize | None:
    """The size of the given student; None for a fresh one. Raises UserError if its directory lacks anything."""
    directory = given_student_dir(config)
    with told_by_key("student.path"):
        return check_model(directory) if directory else None


def expected_size(config: Config) -> tuple[ModelSize | None, list[str]]:
    """As `student_size`, for a plan alone, and what the directory lacks for a run: a config.json is enough for a plan,
    so that it can be made where the weights are not. Raises UserError if there is none."""
    try:
        return student_size(config), []
    except UserError as error:
        directory = given_student_dir(config)
        assert directory is not None
        with told_by_key("student.path"):
            return size_by_config(directory), [str(error)]


def open_run(
    config: Config,
    *,
    resume: bool,
    resume_command: str,
    admit: Callable[[], None],
    tell: Callable[[str], None] = lambda _: None,
) -> RunDirectory:
    """The run's directory, locked, with questions and student in place.

    `admit` is called unless the run is finished, once all else is in order; it may raise UserError, too. `tell` is told
    what takes long. Raises UserError, and then has written nothing.
    """
    check_files(config)
    path, mirror = run_path(config), settled_mirror(config, resume=resume, resume_command=resume_command)
    record = record_of(config)
    begin = partial(
        RunDirectory.resume if resume else RunDirectory.create,
        path,
        record,
        resume_command=resume_command,
        keeper=mirror,
    )
    if resume:
        RunDirectory.check_resume(path, record)
        known = RunDirectory(path)
        if known.done(STAGE_ONE, QUESTIONS_PHASE):
            known.check_left(STAGE_ONE, QUESTIONS_PHASE)
            if not known.summary_file.exists():
                check_reviewer(config, known)
                admit()
                take_over(mirror)
            return begin()
    else:
        RunDirectory.check_new(path, resume_command)
    tell("checking questions and student")
    prepared = checked_questions(config)
    check_reviewer(config)
    with tempfile.TemporaryDirectory() as scratch:
        student = given_student_dir(config) or _fresh(config, prepared, Path(scratch) / "student")
        longest = longest_prompt_tokens(student, _all_questions(prepared), corrected=True)
        check_context(config, student, longest, corrected=True)
        admit()
        if resume:
            take_over(mirror)
        run = begin()
        if config.student.fresh:
            shutil.copytree(student, fresh_student_path(run), dirs_exist_ok=True)
    write_prepared(prepared, run)
    return run


def settled_mirror(config: Config, *, resume: bool, resume_command: str) -> Mirror | None:
    """The mirror of a run in an object store, its working copy brought up to it; None for a run in a directory."""
    mirror = mirror_of(config)
    if mirror:
        with closing(new_lock(mirror.root)):
            mirror.settle(resume=resume, resume_command=resume_command)
    return mirror


def take_over(mirror: Mirror | None) -> None:
    """What a driver that still lived has done since `settled_mirror` is not done again."""
    if mirror:
        with closing(new_lock(mirror.root)):
            mirror.take_over()


def checked_questions(config: Config) -> PreparedQuestions:
    """The questions, in memory. Raises UserError if there are too few, or if the teacher has nothing to say of them."""
    prepared = prepare_questions(config)
    taught = prepared.splits.train[: config.teacher.num_questions]
    teacher = make_teacher(config, taught)
    if not any(verified_template(teacher, question, Counter()) for question in taught):
        raise UserError(
            f"teacher.kind = {config.teacher.kind!r} has no template that reaches the key for any of the "
            f"{len(taught)} questions of stage 1: give questions with explanations, or another teacher"
        )
    return prepared


def check_reviewer(config: Config, run: RunDirectory | None = None) -> None:
    """Raises UserError if an endpoint is to correct, in what is left of the run, and cannot be used."""
    check_reviewers([(config, run)])


def check_reviewers(runs: Iterable[tuple[Config, RunDirectory | None]]) -> None:
    """`check_reviewer` of several runs, which tries each endpoint once."""
    from medcritical_ray.teaching.endpoint.access import check_endpoint

    asked = [config.teacher.endpoint for config, run in runs if _asks_endpoint(config, run)]
    distinct = {(each.base_url, each.model, each.api_key_variable): each for each in asked if each}
    for endpoint in distinct.values():
        check_endpoint(endpoint)


def _asks_endpoint(config: Config, run: RunDirectory | None) -> bool:
    in_stage_one = config.sft.own_attempts > 0 and not (run and run.done(STAGE_ONE, CORRECT_PHASE))
    return config.teacher.corrections == "endpoint" and (in_stage_one or config.correct.policy == "teacher")


def make_reviewer(config: Config, run: RunDirectory, teacher: Teacher, progress: Progress) -> Reviewer:
    """Who corrects what policies write: the teacher by its rules, or the model behind the endpoint."""
    endpoint = config.teacher.endpoint
    if config.teacher.corrections == "rules" or endpoint is None:
        return teacher
    from medcritical_ray.teaching.endpoint.reviewer import EndpointReviewer

    responses = run.path / "teacher" / RESPONSES
    return EndpointReviewer(endpoint, responses, lambda done, total: progress.advance("teacher", done, total))


def student_path(config: Config, run: RunDirectory) -> Path:
    return given_student_dir(config) or fresh_student_path(run)


def fresh_student_path(run: RunDirectory) -> Path:
    return run.path / "student"


def _fresh(config: Config, prepared: PreparedQuestions, directory: Path) -> Path:
    taught = prepared.splits.train[: config.teacher.num_questions_seen]
    make_fresh_student(config, prepared.splits.train, make_teacher(config, taught), directory)
    return directory


def _all_questions(prepared: PreparedQuestions) -> Iterable[Question]:
    return chain(prepared.splits.train, prepared.splits.dev, prepared.splits.test)
