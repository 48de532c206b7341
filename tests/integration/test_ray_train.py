"""Real fits of two workers on Ray Train, of a tiny random model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from rows import pairs

from medcritical_ray.config import DpoConfig, LoraConfig, SftConfig, TrainersConfig
from medcritical_ray.errors import RunFailed, StorageFailed, WaitTimeout
from medcritical_ray.records import Demonstration, PreferencePair
from medcritical_ray.run.tables import write_part
from medcritical_ray.training.models import base_dir, load_frozen
from medcritical_ray.training.prepare import Limits, prepare_sft

pytestmark = pytest.mark.integration

TRAINERS = TrainersConfig(
    num_workers=2, num_cpus=0.5, num_gpus=0, max_tokens_per_forward=512, max_failures=0, timeout_s=250
)


def demonstrations(num_rows: int) -> list[Demonstration]:
    return [
        Demonstration(question_id=f"q{n}", task="solve", prompt=f" w{n} w{n + 1}", response=f" w{n + 1}" + " w9" * n)
        for n in range(num_rows)
    ]


def training_workers() -> list[psutil.Process]:
    """Of the cluster that this process started."""
    processes = psutil.Process().children(recursive=True)
    return [process for process in processes if "ray::RayTrainWorker" in " ".join(process.cmdline())]


def ignore(metrics: dict[str, float]) -> None: ...


def fit_sft(
    policy: Path,
    rows: Path,
    out: Path,
    config: SftConfig,
    trainers: TrainersConfig,
    on_step: Callable[[dict[str, float]], None],
) -> dict[str, Any]:
    from actors.train import fit
    from actors.train_worker import SftTask

    return fit(SftTask(policy_dir=policy, config=config), rows, out, trainers, name="sft", seed=3, on_step=on_step)


IN_THIS_PROCESS = TRAINERS.model_copy(update={"num_workers": 0})
ON_ALL_CPUS = TRAINERS.model_copy(update={"num_cpus": 2})
"""Of the cluster: what reads the workers' rows needs none."""


@pytest.mark.parametrize("trainers", [ON_ALL_CPUS, IN_THIS_PROCESS], ids=["two workers", "no worker"])
def test_a_fit_trains_to_the_weights_that_one_process_trains_to(
    ray_cluster: None, tied_policies: tuple[Path, Path], tmp_path: Path, trainers: TrainersConfig
):
    policy = tied_policies[0]
    rows = demonstrations(7)  # an odd number: the shards differ in size, and no row is left over
    write_part(tmp_path / "rows", 0, rows[:5], Demonstration)
    write_part(tmp_path / "rows", 1, rows[5:], Demonstration)
    config = SftConfig(method="full", num_epochs=4, batch_size=8, learning_rate=1e-3, max_length_tokens=32)
    steps: list[dict[str, float]] = []
    out = tmp_path / "out"
    figures = fit_sft(policy, tmp_path / "rows", out, config, trainers, on_step=steps.append)

    alone = prepare_sft(policy, rows, config, Limits(seed=3, max_tokens_per_forward=512), torch.device("cpu"))
    expected = alone.train(alone.model, lambda _: None)
    assert figures["num_demonstrations"] == expected["num_demonstrations"] == 7
    assert figures["last_step"] == pytest.approx(expected["last_step"], rel=1e-3)
    trained = load_frozen(out, torch.device("cpu")).state_dict()
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(trained[name], weight, atol=1e-4, rtol=1e-3)
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows"]


def test_dpo_of_an_adapter_ends_as_if_no_worker_had_died(
    ray_cluster: None, tied_policies: tuple[Path, Path], tmp_path: Path
):
    from actors.train import fit
    from actors.train_worker import DpoTask

    policy = tied_policies[0]
    write_part(tmp_path / "rows", 0, pairs(45), PreferencePair)
    config = DpoConfig(
        method="lora",
        lora=LoraConfig(rank=4, alpha=8),
        num_epochs=100,
        batch_size=8,
        learning_rate=1e-3,
        held_out_share=0.3,
        max_length_tokens=32,
        early_stop=False,
    )
    out = tmp_path / "out"
    steps: list[float] = []

    def kill_one_worker_once(metrics: dict[str, float]) -> None:
        if not steps:
            training_workers()[0].kill()
        steps.append(metrics["step"])

    trainers = TRAINERS.model_copy(update={"max_failures": 1})
    task = DpoTask(policy_dir=policy, reference_dir=policy, config=config)
    figures = fit(task, tmp_path / "rows", out, trainers, name="dpo", seed=3, on_step=kill_one_worker_once)

    assert steps.count(1.0) == 2
    assert figures["num_steps"] == figures["last_step"]["num_steps"] == steps[-1]
    assert figures["num_pairs"] + figures["num_held_out"] == 45
    assert figures["held_out"]["after"]["ranking_accuracy"] > figures["held_out"]["before"]["ranking_accuracy"]
    assert figures["held_out"]["after"]["accuracy"] > 0.9
    assert (out / "adapter_model.safetensors").is_file()
    assert not (out / "model.safetensors").exists()
    assert base_dir(out) == policy
    assert load_frozen(out, torch.device("cpu")).num_parameters() > 0


def test_a_worker_that_is_stopped_is_ended_and_the_training_starts_again(
    ray_cluster: None, tied_policies: tuple[Path, Path], tmp_path: Path
):
    write_part(tmp_path / "rows", 0, demonstrations(8), Demonstration)
    config = SftConfig(method="full", num_epochs=200, batch_size=8, max_length_tokens=32)
    steps: list[float] = []
    stopped: list[psutil.Process] = []

    def stop_one_worker_once(metrics: dict[str, float]) -> None:
        steps.append(metrics["step"])
        if not stopped:
            stopped.append(training_workers()[0])
            stopped[0].suspend()

    trainers = TRAINERS.model_copy(update={"num_workers": 1, "max_failures": 1, "answer_timeout_s": 3.0})
    fit_sft(
        tied_policies[0],
        tmp_path / "rows",
        tmp_path / "out",
        config,
        trainers,
        on_step=stop_one_worker_once,
    )
    assert (steps.count(1.0), steps[-1]) == (2, 200.0)
    assert not stopped[0].is_running()


def test_a_training_that_makes_no_step_ends(ray_cluster: None, tied_policies: tuple[Path, Path], tmp_path: Path):
    write_part(tmp_path / "rows", 0, demonstrations(8), Demonstration)
    trainers = TRAINERS.model_copy(update={"progress_timeout_s": 1.0})
    config = SftConfig(method="full", batch_size=8, max_length_tokens=32)
    with pytest.raises(WaitTimeout, match=r"made no step for 1 s: .* raise trainers\.progress_timeout_s"):
        fit_sft(
            tied_policies[0],
            tmp_path / "rows",
            tmp_path / "out",
            config,
            trainers,
            on_step=lambda _: None,
        )


@pytest.mark.parametrize("trainers", [TRAINERS, IN_THIS_PROCESS], ids=["two workers", "no worker"])
def test_a_loss_that_is_not_finite_ends_the_fit_and_names_the_learning_rate(
    ray_cluster: None, tied_policies: tuple[Path, Path], tmp_path: Path, trainers: TrainersConfig
):
    write_part(tmp_path / "rows", 0, demonstrations(8), Demonstration)
    config = SftConfig(method="full", num_epochs=3, batch_size=8, learning_rate=1e14, max_length_tokens=32)
    with pytest.raises(RunFailed, match=r"lower sft\.learning_rate"):
        fit_sft(tied_policies[0], tmp_path / "rows", tmp_path / "out", config, trainers, on_step=ignore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows"]


@pytest.mark.parametrize("workers", [TRAINERS, IN_THIS_PROCESS], ids=["two workers", "no worker"])
def test_a_fit_ends_at_its_time_limit(
    ray_cluster: None, tied_policies: tuple[Path, Path], tmp_path: Path, workers: TrainersConfig
):
    write_part(tmp_path / "rows", 0, demonstrations(8), Demonstration)
    trainers = workers.model_copy(update={"timeout_s": 1.0})
    config = SftConfig(method="full", num_epochs=1000, batch_size=8, max_length_tokens=32)
    with pytest.raises(WaitTimeout, match=r"raise trainers\.timeout_s"):
        fit_sft(tied_policies[0], tmp_path / "rows", tmp_path / "out", config, trainers, on_step=ignore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows"]


def test_workers_that_find_no_machine_end_the_wait_with_what_is_needed_and_where(
    ray_cluster: None, tied_policies: tuple[Path, Path], tmp_path: Path
):
    write_part(tmp_path / "rows", 0, demonstrations(8), Demonstration)
    trainers = TRAINERS.model_copy(update={"labels": {"role": "trainer"}, "start_timeout_s": 1.0})
    config = SftConfig(method="full", batch_size=8, max_length_tokens=32)
    expected = (
        r"^sft: 2 training workers did not start in 1 s: 1 CPUs needed, 0 there on nodes labelled "
        r"role=trainer \(trainers\.labels\): bring such machines, free them, or raise trainers\.start_timeout_s$"
    )
    with pytest.raises(WaitTimeout, match=expected):
        fit_sft(tied_policies[0], tmp_path / "rows", tmp_path / "out", config, trainers, on_step=ignore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows"]


def test_a_disk_without_space_for_the_policy_is_named_and_leaves_none(
    ray_cluster: None, tied_policies: tuple[Path, Path], tmp_path: Path
):
    """/dev/full stands where the policy's config is written."""
    write_part(tmp_path / "rows", 0, demonstrations(8), Demonstration)
    (tmp_path / ".out.fits" / "policy").mkdir(parents=True)
    (tmp_path / ".out.fits" / "policy" / "config.json").symlink_to("/dev/full")
    config = SftConfig(method="full", num_epochs=1, batch_size=8, max_length_tokens=32)
    arguments = tied_policies[0], tmp_path / "rows", tmp_path / "out", config, IN_THIS_PROCESS
    with pytest.raises(StorageFailed, match=r"out\.fits/policy cannot be written on \S+: .*No space left on device"):
        fit_sft(*arguments, on_step=ignore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows"]
    assert fit_sft(*arguments, on_step=ignore)["num_demonstrations"] == 8
