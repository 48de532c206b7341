"""The whole config, and what must hold between its parts."""

import re
from collections.abc import Iterator
from typing import Self
from urllib.parse import urlsplit

from pydantic import model_validator

from medcritical_ray.config.data import EndpointConfig, QuestionsConfig, RunConfig, StudentConfig, TeacherConfig
from medcritical_ray.config.part import Part
from medcritical_ray.config.resources import ClusterConfig, EnginesConfig, TrainersConfig
from medcritical_ray.config.rollouts import CorrectConfig, EvaluateConfig, GenerateConfig, PairsConfig
from medcritical_ray.config.serving import ServeConfig
from medcritical_ray.config.training import DpoConfig, GuardsConfig, SftConfig
from medcritical_ray.records import PairSource
from medcritical_ray.store.locations import uri_problems

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class PartsDoNotFit(ValueError):
    """What does not hold between the parts: each problem is one of its arguments."""

    def __str__(self) -> str:
        return "; ".join(self.args)


class Config(Part):
    """One run, in full. The defaults suit a 7B student on two GPUs of 80 GB; only the questions are the clinic's."""

    run: RunConfig = RunConfig()
    questions: QuestionsConfig = QuestionsConfig()
    student: StudentConfig = StudentConfig()
    teacher: TeacherConfig = TeacherConfig()
    sft: SftConfig = SftConfig()
    generate: GenerateConfig = GenerateConfig()
    correct: CorrectConfig = CorrectConfig()
    pairs: PairsConfig = PairsConfig()
    dpo: DpoConfig = DpoConfig()
    engines: EnginesConfig = EnginesConfig()
    trainers: TrainersConfig = TrainersConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    guards: GuardsConfig = GuardsConfig()
    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def pairing(self) -> PairsConfig:
        """The bounds of pairs: a teacher's one repair needs nobody who agrees."""
        if self.correct.policy != "teacher":
            return self.pairs
        return self.pairs.model_copy(update={"min_agreement": 1})

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        problems = [
            *_question_problems(self),
            *_student_problems(self),
            *_teacher_problems(self),
            *_pair_problems(self),
            *_token_problems(self),
            *_machinery_problems(self),
        ]
        if problems:
            raise PartsDoNotFit(*problems)
        return self


def _question_problems(config: Config) -> Iterator[str]:
    yield from (f"run.directory: {problem}" for problem in uri_problems(config.run.directory))
    questions = config.questions
    if questions.kind == "file" and not questions.path:
        yield "questions.path is not set: must name the file of questions where questions.kind = 'file'"
    if questions.kind == "clinic":
        for name in ("path", "dev_path", "test_path", "map"):
            if getattr(questions, name):
                yield f"questions.{name} is set: must not be where questions.kind = 'clinic'; set questions.kind='file'"
    if (config.generate.num_questions or 0) > questions.num_train:
        allowed = f"must be at most questions.num_train = {questions.num_train}"
        yield f"generate.num_questions = {config.generate.num_questions}: {allowed}"


def _student_problems(config: Config) -> Iterator[str]:
    questions, student = config.questions, config.student
    if questions.kind == "file" and not student.path and not student.fresh:
        yield "student.path is not set: must name a model where questions.kind = 'file'; or set student.fresh"
    if student.path and student.fresh:
        yield f"student.path = {student.path!r}: must not be set together with student.fresh"
    if student.fresh and student.fresh.hidden_size % (32 * student.fresh.num_heads):
        # The heads' sizes that every attention kernel of the engines takes are multiples of 32.
        allowed = f"must be a multiple of 32 * student.fresh.num_heads = {32 * student.fresh.num_heads}"
        yield f"student.fresh.hidden_size = {student.fresh.hidden_size}: {allowed}"


def _teacher_problems(config: Config) -> Iterator[str]:
    questions, teacher = config.questions, config.teacher
    refused = {"clinic": "explanations", "file": "clinic"}[questions.kind]
    if teacher.kind == refused:
        yield f"teacher.kind = {teacher.kind!r}: must be another where questions.kind = {questions.kind!r}"
    for name in ("num_questions", "num_corrected"):
        if (getattr(teacher, name) or 0) > questions.num_train:
            allowed = f"must be at most questions.num_train = {questions.num_train}"
            yield f"teacher.{name} = {getattr(teacher, name)}: {allowed}"
    if (teacher.kind == "distilled") != (teacher.path is not None):
        yield f"teacher.path = {teacher.path!r}: must be a directory of `distill` where kind = 'distilled', only"
    if teacher.corrections == "endpoint" and teacher.endpoint is None:
        yield "teacher.endpoint is not set: must name base_url and model where teacher.corrections = 'endpoint'"
    if config.correct.policy == "teacher" and teacher.kind != "clinic" and teacher.corrections != "endpoint":
        # Templates are of stage 1's questions, and stage 2 plays on with others.
        yield "correct.policy = 'teacher': needs teacher.corrections = 'endpoint' where the teacher only has templates"
    if teacher.endpoint:
        yield from _endpoint_problems(teacher.endpoint)


def _endpoint_problems(endpoint: EndpointConfig) -> Iterator[str]:
    """None shows the value: a key may have been put there by mistake, as in ?api-key=..., and configs are kept."""
    try:
        url = urlsplit(endpoint.base_url)
        is_url = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        yield "teacher.endpoint.base_url: must be an address such as https://api.openai.com/v1"
    elif "@" in url.netloc or url.query:
        yield "teacher.endpoint.base_url: must hold no user, password or query: the key goes into the environment"
    if not _VARIABLE.fullmatch(endpoint.api_key_variable):
        yield "teacher.endpoint.api_key_variable: must be the name of an environment variable, in capitals, not a key"


def _pair_problems(config: Config) -> Iterator[str]:
    used = {source for source, share in config.pairs.shares.items() if share > 0}
    if "own" in used and config.generate.num_attempts < 2:
        yield f"generate.num_attempts = {config.generate.num_attempts}: must be at least 2 where pairs.shares has 'own'"
    if config.correct.policy != "teacher":
        yield from _corrector_problems(config, used)
    elif refused := sorted(used & {"repair", "keep"}):
        # There is no corrector to be trained, and one repair is not compared with another.
        yield f"pairs.shares has {refused[0]!r}: must not where correct.policy = 'teacher'"


def _corrector_problems(config: Config, used: set[PairSource]) -> Iterator[str]:
    pairs, num_corrections = config.pairs, config.correct.num_corrections
    if pairs.agree_on == "key" and "repair" in used and pairs.min_agreement >= num_corrections:
        # A pair of this source has a failed repair as its rejected text.
        allowed = f"must be above pairs.min_agreement = {pairs.min_agreement} where pairs.shares has 'repair'"
        yield f"correct.num_corrections = {num_corrections}: {allowed}"
    elif pairs.agree_on == "key" and "correction" in used and pairs.min_agreement > num_corrections:
        yield (
            f"pairs.min_agreement = {pairs.min_agreement}: must be at most correct.num_corrections = {num_corrections}"
        )
    if "keep" in used and num_corrections < 2:
        yield f"correct.num_corrections = {num_corrections}: must be at least 2 where pairs.shares has 'keep'"
    if "keep" in used and config.correct.checked_share == 0:
        yield "correct.checked_share = 0: must be greater than 0 where pairs.shares has 'keep'"


def _token_problems(config: Config) -> Iterator[str]:
    """One, of all three keys: whoever lowers one of them below the context's length would be told of the next."""
    attempt, correction = config.generate.sampling.max_tokens, config.correct.sampling.max_tokens
    max_model_len = config.engines.max_model_len
    if attempt + correction >= max_model_len:
        yield (
            f"generate.sampling.max_tokens = {attempt} and correct.sampling.max_tokens = {correction}: must together "
            f"be below engines.max_model_len = {max_model_len}, since a correction is written after an attempt"
        )


def _machinery_problems(config: Config) -> Iterator[str]:
    engines, trainers, sft, dpo = config.engines, config.trainers, config.sft, config.dpo
    if trainers.num_workers == 0 and trainers.num_gpus:
        yield f"trainers.num_gpus = {trainers.num_gpus:g}: must be 0 where trainers.num_workers = 0"
    if engines.required_engines > engines.num_engines:
        allowed = f"must be at most engines.num_engines = {engines.num_engines}"
        yield f"engines.required_engines = {engines.required_engines}: {allowed}"
    if engines.tensor_parallel_size > max(1, engines.num_gpus):
        allowed = f"must be at most engines.num_gpus = {engines.num_gpus:g}"
        yield f"engines.tensor_parallel_size = {engines.tensor_parallel_size}: {allowed}"
    if engines.weight_transfer == "nccl" and engines.num_gpus < 1:
        # One GPU cannot have two ranks of a communicator, and engines with a share of it would be such.
        yield f"engines.num_gpus = {engines.num_gpus:g}: must be at least 1 where engines.weight_transfer = 'nccl'"
    if sft.method == dpo.method == "lora" and (sft.lora.rank, sft.lora.alpha) != (dpo.lora.rank, dpo.lora.alpha):
        # DPO goes on training the adapter that SFT made.
        wanted = f"{{ rank = {sft.lora.rank}, alpha = {sft.lora.alpha} }}"
        yield f"dpo.lora: must have the rank and alpha of sft.lora = {wanted}"
    for name, batch_size in (("sft", sft.batch_size), ("dpo", dpo.batch_size)):
        if batch_size % (trainers.num_workers or 1):
            allowed = f"must be a multiple of trainers.num_workers = {trainers.num_workers}"
            yield f"{name}.batch_size = {batch_size}: {allowed}"
