"""What is refused before a run is written."""

from pathlib import Path

import pytest
from endpoint_server import servers

from jobs.cli import main
from medcritical_ray.config_files import load_config
from medcritical_ray.errors import UserError
from medcritical_ray.opening import open_run, run_path
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Question, lettered
from medcritical_ray.run.directory import STAGE_ONE, RunDirectory
from medcritical_ray.run.questions import QUESTIONS_PHASE
from medcritical_ray.run.record import record_of
from medcritical_ray.run.state import run_state


def test_a_teacher_with_nothing_to_say_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    options = lettered(["yes", "no"])
    questions = [Question(id=f"q{n}", source="s", stem=f"Is it {n}?", options=options, key="A") for n in range(20)]
    write_questions(tmp_path / "q.jsonl", questions)
    (tmp_path / "my.toml").write_text(
        """
        [questions]
        kind = "file"
        path = "q.jsonl"
        num_train = 10
        num_dev = 5
        num_test = 5
        [student.fresh]
        [teacher]
        kind = "explanations"
        num_questions = 10
        [engines]
        num_gpus = 0
        [trainers]
        num_gpus = 0
        """
    )
    monkeypatch.chdir(tmp_path)
    assert main(["self-play", "--config", "my.toml"]) == 2
    message = capsys.readouterr().err
    assert "has no template that reaches the key for any of the 10 questions of stage 1" in message
    assert not (tmp_path / "runs").exists()


QWEN_7B_CONFIG = """
{"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
 "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "torch_dtype": "bfloat16"}
"""
SHIPPED = Path(__file__).parents[2] / "jobs" / "configs" / "qwen2.5_7b_cmexam_1gpu.toml"


@pytest.mark.integration
def test_a_dry_run_takes_a_config_without_weights_and_says_what_is_missing(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    options, explanation = lettered(["yes", "no"]), "It is. A对, B错."
    for split in ("train", "dev", "test"):
        questions = [
            Question(id=f"{n}", source="s", stem=f"{split} {n}?", options=options, key="A", explanation=explanation)
            for n in range(10)
        ]
        write_questions(tmp_path / f"{split}.jsonl", questions)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(QWEN_7B_CONFIG)
    monkeypatch.chdir(tmp_path)
    settings = [
        "student.path=model",
        "questions={kind='file', path='train.jsonl', dev_path='dev.jsonl', test_path='test.jsonl', num_train=10, "
        "num_dev=10, num_test=10}",
        "teacher.num_questions=10",
        "generate.num_questions=10",
    ]
    assert main(["self-play", "--config", str(SHIPPED), *(f"--set={each}" for each in settings), "--dry-run"]) == 2
    printed = capsys.readouterr().out
    assert "model                 7,615,616,512 parameters\n" in printed
    assert "GPU memory            at least 70.6 GiB per GPU" in printed
    assert f"missing: student.path: {tmp_path}/model: no weights: *.safetensors files must lie there\n" in printed
    assert "does not fit: GPUs: 1 needed, 0 there" in printed
    assert not (tmp_path / "runs").exists()


def test_a_refused_resume_leaves_the_run_and_why_it_failed_as_they_were(tmp_path: Path):
    config = load_config(SHIPPED.with_name("demo.toml"), [f"run.directory={tmp_path}"])
    with RunDirectory.create(run_path(config), record_of(config), resume_command="again") as run:
        run.mark_done(STAGE_ONE, QUESTIONS_PHASE, {})
        run.append_event("run failed", cause="the disk is full")
    before = list(run.events())

    def refuse() -> None:
        raise UserError("too small a cluster")

    with pytest.raises(UserError, match="too small a cluster"):
        open_run(config, resume=True, resume_command="again", admit=refuse)
    assert list(run.events()) == before
    assert (run_state(run).state, run_state(run).cause) == ("failed", "the disk is full")
    with open_run(config, resume=True, resume_command="again", admit=lambda: None):
        assert [event["event"] for event in run.events()][-1] == "run resumed"


@pytest.mark.parametrize("command", [["self-play"], ["study", "--out", "study"]])
def test_a_wrong_key_of_the_model_that_corrects_fails_before_any_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key")
    monkeypatch.chdir(tmp_path)
    with servers() as serve:
        server = serve(lambda handler, num_asked: handler.answer("nothing is asked"))
        Path("my.toml").write_text(
            f"""
            [questions]
            num_train = 10
            num_dev = 5
            num_test = 5
            [teacher]
            num_questions = 10
            corrections = "endpoint"
            endpoint = {{ base_url = "http://127.0.0.1:{server.server_port}/v1", model = "big" }}
            [engines]
            num_gpus = 0
            [trainers]
            num_gpus = 0
            """
        )
        assert main([*command, "--config", "my.toml"]) == 2
    message = capsys.readouterr().err
    assert message.endswith("refuses the key in $OPENAI_API_KEY (401): Incorrect API key: (key)\n")
    assert server.asked.total() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]
