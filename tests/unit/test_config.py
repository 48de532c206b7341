"""The config's models: what they refuse alone, and what must hold between them."""

from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from medcritical_ray.config import Config, EnginesConfig, PairsConfig, RunConfig

FILE_QUESTIONS = {"questions": {"kind": "file", "path": "exam.csv"}, "teacher": {"kind": "explanations"}}


def problems_of(values: dict) -> str:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(values)
    return str(caught.value)


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and all models in it, such as `B` in a field of type `B | None`."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from models_of(kind)


PARTS = sorted(set(models_of(Config)) - {Config}, key=lambda model: model.__name__)


def test_the_defaults_fit_together():
    assert Config().dpo.beta == 0.1


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Config().run.seed = 1


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="bata"):
        Config.model_validate({"dpo": {"bata": 0.1}})


@pytest.mark.parametrize("values", [{"num_iterations": True}, {"num_iterations": "3"}, {"num_iterations": 3.0}])
def test_a_value_of_another_type_is_refused(values: dict):
    with pytest.raises(ValidationError, match="valid integer"):
        RunConfig.model_validate(values)


def test_an_integer_is_a_number():
    assert EnginesConfig.model_validate({"num_gpus": 0}).num_gpus == 0.0


@pytest.mark.parametrize(
    "name", ["", "../a", "..", ".hidden", "two words", "a/b", "a\\b", "line\n", "-rf", "発熱", "a" * 101]
)
def test_a_run_name_that_is_no_plain_directory_name_is_refused(name: str):
    with pytest.raises(ValidationError, match=r"letters, digits|control characters"):
        RunConfig(name=name)


@pytest.mark.parametrize("model", PARTS, ids=lambda model: model.__name__)
def test_every_field_says_what_it_means(model: type[BaseModel]):
    tables = {name for name, field in model.model_fields.items() if isinstance(field.default, BaseModel)}
    assert [name for name, field in model.model_fields.items() if not field.description and name not in tables] == []


def test_every_time_limit_is_in_seconds_and_above_zero():
    limits = [(model, name) for model in PARTS for name in model.model_fields if "timeout" in name]
    assert len(limits) >= 5
    for model, name in limits:
        assert name.endswith("timeout_s")
        with pytest.raises(ValidationError, match="greater than 0"):
            model.model_validate({name: 0})


def test_shares_must_sum_to_one():
    with pytest.raises(ValidationError, match=r"must sum to 1, not to 0\.9"):
        PairsConfig(shares={"own": 0.9})


def test_shares_in_thirds_sum_to_one():
    third = 1 / 3
    assert PairsConfig(shares={"own": third, "correction": third, "keep": third}).shares["own"] == third


def test_a_negative_share_is_refused():
    with pytest.raises(ValidationError, match="must not be negative"):
        PairsConfig(shares={"own": 1.5, "correction": -0.5})


def test_shares_of_an_unknown_source_are_refused():
    with pytest.raises(ValidationError, match="'correction', 'own', 'repair' or 'keep'"):
        PairsConfig.model_validate({"shares": {"teacher": 1.0}})


def test_questions_from_a_file_need_its_path():
    values = {"questions": {"kind": "file"}, "teacher": {"kind": "explanations"}, "student": {"path": "model"}}
    assert "questions.path is not set: must name the file" in problems_of(values)


def test_questions_from_a_file_need_a_student():
    assert "student.path is not set" in problems_of(FILE_QUESTIONS)


@pytest.mark.parametrize("student", [{"path": "model"}, {"fresh": {}}])
def test_questions_from_a_file_take_a_model_or_a_fresh_student(student: dict):
    assert Config.model_validate({**FILE_QUESTIONS, "student": student}).questions.path == "exam.csv"


def test_a_student_is_either_a_model_or_fresh():
    values = {"student": {"path": "model", "fresh": {}}}
    assert "student.path = 'model': must not be set together with student.fresh" in problems_of(values)


def test_a_fresh_student_has_heads_that_engines_take():
    values = {"student": {"fresh": {"hidden_size": 200, "num_heads": 4}}}
    assert "student.fresh.hidden_size = 200: must be a multiple of 32 * student.fresh.num_heads = 128" in problems_of(
        values
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"teacher": {"kind": "explanations"}},
            "teacher.kind = 'explanations': must be another where questions.kind = 'clinic'",
        ),
        (
            {**FILE_QUESTIONS, "teacher": {"kind": "clinic"}},
            "teacher.kind = 'clinic': must be another where questions.kind = 'file'",
        ),
    ],
)
def test_a_teacher_must_know_the_questions(values: dict, expected: str):
    assert expected in problems_of(values)


def test_the_teacher_works_on_no_more_than_the_training_part():
    values = {"questions": {"num_train": 100}, "teacher": {"num_questions": 101}}
    assert "teacher.num_questions = 101: must be at most questions.num_train = 100" in problems_of(values)
    values["teacher"] = {"num_questions": 10, "num_corrected": 101}
    assert "teacher.num_corrected = 101: must be at most questions.num_train = 100" in problems_of(values)


def test_an_iteration_plays_on_no_more_than_the_training_part():
    values = {"questions": {"num_train": 1000}, "generate": {"num_questions": 1001}}
    assert "generate.num_questions = 1001: must be at most questions.num_train = 1000" in problems_of(values)


@pytest.mark.parametrize("setting", [{"path": "exam.csv"}, {"test_path": "test.csv"}, {"map": {"key": "label"}}])
def test_a_file_of_questions_beside_the_clinics_is_refused(setting: dict):
    (name,) = setting
    assert f"questions.{name} is set: must not be where questions.kind = 'clinic'" in problems_of(
        {"questions": setting}
    )


def test_no_more_corrections_can_agree_on_the_key_than_are_made():
    values = {"pairs": {"min_agreement": 5}, "correct": {"num_corrections": 4}}
    assert "pairs.min_agreement = 5: must be at most correct.num_corrections = 4" in problems_of(values)


@pytest.mark.parametrize("pairs", [{"agree_on": "steps"}, {"shares": {"own": 1.0}}])
def test_all_tries_of_a_question_can_agree_on_the_steps_and_attempts_alone_need_no_correction(pairs: dict):
    values = {"pairs": {"min_agreement": 2, **pairs}, "correct": {"num_corrections": 1}}
    assert Config.model_validate(values).pairing.min_agreement == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"pairs": {"shares": {"own": 1.0}}, "generate": {"num_attempts": 1}}, "generate.num_attempts = 1: must be at"),
        (
            {"pairs": {"shares": {"repair": 1.0}, "min_agreement": 4}},
            "correct.num_corrections = 4: must be above pairs.min_agreement = 4",
        ),
        (
            {"pairs": {"shares": {"keep": 1.0}, "min_agreement": 1}, "correct": {"num_corrections": 1}},
            "correct.num_corrections = 1: must be at least 2",
        ),
        (
            {"pairs": {"shares": {"keep": 1.0}}, "correct": {"checked_share": 0.0}},
            "correct.checked_share = 0: must be greater than 0 where pairs.shares has 'keep'",
        ),
    ],
)
def test_a_pair_source_that_could_never_make_a_pair_is_refused(values: dict, expected: str):
    assert expected in problems_of(values)


def test_a_teachers_one_repair_is_all_the_agreement_that_there_can_be():
    config = Config.model_validate({"correct": {"policy": "teacher"}, "pairs": {"min_agreement": 3}})
    assert (config.correct.num_repairs, config.pairing.min_agreement) == (1, 1)
    config = Config.model_validate({"correct": {"num_corrections": 4}, "pairs": {"min_agreement": 3}})
    assert (config.correct.num_repairs, config.pairing.min_agreement) == (4, 3)


@pytest.mark.parametrize("source", ["repair", "keep"])
def test_a_teachers_repairs_train_no_corrector(source: str):
    values = {"correct": {"policy": "teacher"}, "pairs": {"shares": {"correction": 0.5, source: 0.5}}}
    assert f"pairs.shares has '{source}': must not where correct.policy = 'teacher'" in problems_of(values)


def test_corrections_by_an_endpoint_need_one():
    expected = "teacher.endpoint is not set: must name base_url and model where teacher.corrections = 'endpoint'"
    assert expected in problems_of({"teacher": {"corrections": "endpoint"}})


def test_an_endpoint_alone_is_asked_for_no_corrections():
    config = Config.model_validate({"teacher": {"endpoint": {"base_url": "http://localhost/v1", "model": "big"}}})
    assert config.teacher.corrections == "rules"


def test_a_source_with_share_zero_demands_nothing():
    shares = {"correction": 1.0, "keep": 0.0}
    assert (
        Config.model_validate({"pairs": {"shares": shares}, "correct": {"checked_share": 0.0}}).pairs.shares == shares
    )


def test_an_attempt_must_be_shorter_than_the_context():
    values = {"generate": {"sampling": {"max_tokens": 256}}, "engines": {"max_model_len": 256}}
    told = problems_of(values)
    assert "generate.sampling.max_tokens = 256 and correct.sampling.max_tokens = 1024: must together be below " in told
    assert "engines.max_model_len = 256" in told


def test_a_correction_must_fit_the_context_together_with_its_attempt():
    sampling = {"sampling": {"max_tokens": 128}}
    values = {"generate": sampling, "correct": sampling, "engines": {"max_model_len": 256}}
    assert "max_tokens = 128 and correct.sampling.max_tokens = 128: must together be below" in problems_of(values)


def test_an_engine_splits_its_weights_over_no_more_gpus_than_it_has():
    values = {"engines": {"num_gpus": 1, "tensor_parallel_size": 2}}
    assert "engines.tensor_parallel_size = 2: must be at most engines.num_gpus = 1" in problems_of(values)


@pytest.mark.parametrize("num_gpus", [0, 0.5])
def test_weights_go_from_gpu_to_gpu_only_where_every_engine_has_one_of_its_own(num_gpus: float):
    values = {"engines": {"num_gpus": num_gpus, "weight_transfer": "nccl"}}
    told = f"engines.num_gpus = {num_gpus}: must be at least 1 where engines.weight_transfer = 'nccl'"
    assert told in problems_of(values)


def test_weights_go_through_the_object_store_unless_the_config_says_otherwise():
    assert EnginesConfig().weight_transfer == "object_store"
    assert Config.model_validate({"engines": {"weight_transfer": "nccl"}}).engines.weight_transfer == "nccl"


def test_no_more_engines_are_required_than_there_are():
    values = {"engines": {"num_engines": 2, "required_engines": 3}}
    assert "engines.required_engines = 3: must be at most engines.num_engines = 2" in problems_of(values)


def test_training_in_the_jobs_own_process_takes_no_gpu():
    assert "trainers.num_gpus = 1: must be 0 where trainers.num_workers = 0" in problems_of(
        {"trainers": {"num_workers": 0}}
    )


def test_a_batch_is_shared_evenly_by_the_workers():
    values = {"trainers": {"num_workers": 3}}
    assert "dpo.batch_size = 32: must be a multiple of trainers.num_workers = 3" in problems_of(values)


def test_dpo_goes_on_with_the_adapter_of_sft():
    values = {"dpo": {"lora": {"rank": 8}}}
    assert "dpo.lora: must have the rank and alpha of sft.lora = { rank = 32, alpha = 64 }" in problems_of(values)
    assert Config.model_validate({**values, "sft": {"method": "full"}}).dpo.lora.rank == 8


def test_all_problems_are_told_at_once():
    values = {"pairs": {"min_agreement": 5}, "trainers": {"num_workers": 3}}
    assert "pairs.min_agreement" in problems_of(values)
    assert "sft.batch_size" in problems_of(values)
