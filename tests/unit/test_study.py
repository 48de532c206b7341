"""The study: arms that share stage 1, played by a team without engines, and what is made of their runs."""

import shutil
from itertools import combinations
from pathlib import Path

import pytest
from fakes import SmallRun, small_config

from medcritical_ray.config_files import load_config
from medcritical_ray.errors import UserError
from medcritical_ray.files import read_json, write_json
from medcritical_ray.records import PreferencePair
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import new_record
from medcritical_ray.run.tables import count_rows, iter_parts
from medcritical_ray.self_play import self_play
from medcritical_ray.stage_one import stage_one
from medcritical_ray.study.arms import ARMS, TRUNK, arm_config, arm_configs, arm_run, is_finished, read_arms
from medcritical_ray.study.branching import open_branch
from medcritical_ray.study.figures import study_figures
from medcritical_ray.study.table import study_table
from medcritical_ray.summary import summarise

BASE = small_config(run={"num_iterations": 1})


def play_arm(out: Path, arm: str, seed: int) -> list[tuple[int, str]]:
    """Plays an arm as a new process would; returns the phases that it carried out."""
    config = arm_config(BASE, arm, ARMS, seed, out)
    path = arm_run(out, seed, arm).path
    if arm != TRUNK:
        open_branch(config, path, arm_run(out, seed, TRUNK), resume_command="again").close()
    game = SmallRun(path.parent, config).open()
    with game.run:
        policy = self_play(game, stage_one(game))
        write_json(game.run.summary_file, summarise(game, policy.version))
    return game.progress.phases


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[tuple[int, str]]]]:
    out = tmp_path_factory.mktemp("study")
    return out, {arm: play_arm(out, arm, seed=0) for arm in (TRUNK, *ARMS)}


def test_stage_1_is_gone_through_once_and_shared(study: tuple[Path, dict[str, list[tuple[int, str]]]]):
    out, phases = study
    assert {iteration for iteration, _ in phases[TRUNK]} == {0}
    for arm in ARMS:
        assert {iteration for iteration, _ in phases[arm]} == {1}
        weights = [arm_run(out, 0, name).policies / "v0000" / "model.safetensors" for name in (TRUNK, arm)]
        assert weights[0].samefile(weights[1])


def test_every_arm_makes_pairs_of_its_own_sources_only(study: tuple[Path, dict[str, list[tuple[int, str]]]]):
    sources = {
        arm: {pair.source for pair in iter_parts(arm_run(study[0], 0, arm).iteration(1) / "pairs", PreferencePair)}
        for arm in ARMS
    }
    assert sources["self_dpo"] == {"correction", "repair", "keep"}
    assert sources["teacher_dpo"] == {"correction"}
    assert sources["own_pairs_dpo"] == {"own"}
    assert sources["both_dpo"] == sources["rft"] == {"correction", "own", "repair", "keep"}


def test_an_arm_whose_pairs_need_no_corrections_has_none_written(study: tuple[Path, dict[str, list[tuple[int, str]]]]):
    assert count_rows(arm_run(study[0], 0, "own_pairs_dpo").iteration(1) / "corrections") == 0
    assert count_rows(arm_run(study[0], 0, "both_dpo").iteration(1) / "corrections") > 0


def test_the_figures_are_those_of_the_runs(study: tuple[Path, dict[str, list[tuple[int, str]]]]):
    figures = study_figures(study[0], ARMS, [0])
    assert list(figures["arms"]) == [TRUNK, *ARMS]
    for arm, row in figures["arms"].items():
        assert row["accuracy"] == [read_json(arm_run(study[0], 0, arm).summary_file)["accuracy"]["final"]]
        assert row["num_test"] == 8
        assert row["seconds"][0] > 0
    assert figures["arms"]["self_dpo"]["stage2_teacher_calls"] == 0
    assert figures["arms"]["teacher_dpo"]["stage2_teacher_calls"] > 0
    assert figures["arms"]["own_pairs_dpo"]["rollout_tokens"] < figures["arms"]["both_dpo"]["rollout_tokens"]
    over_sft = figures["comparisons"]["both_dpo"][TRUNK]
    gain = figures["arms"]["both_dpo"]["accuracy"][0] - figures["arms"][TRUNK]["accuracy"][0]
    assert over_sft["gain"] == pytest.approx(gain)


def test_the_table_has_a_row_for_every_arm_and_for_the_method_over_every_other(
    study: tuple[Path, dict[str, list[tuple[int, str]]]],
):
    lines = study_table(study_figures(study[0], ARMS, [0])).splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == 6 + 2 * 5
    assert len({line.count("|") for line in rows[:6]}) == 1
    assert rows[6].startswith("| `self_dpo` | `sft` |")
    assert "[" not in rows[0]  # one seed tells nothing of how far seeds differ


def test_an_arm_that_stopped_on_the_way_to_its_stage_1_takes_it_over_again(
    study: tuple[Path, dict[str, list[tuple[int, str]]]], tmp_path: Path
):
    trunk = arm_run(study[0], 0, TRUNK)
    config = arm_config(BASE, "self_dpo", ARMS, 0, tmp_path)
    path = tmp_path / "seed-0" / "self_dpo"
    open_branch(config, path, trunk, resume_command="again").close()
    shutil.rmtree(path / "iterations")
    run = open_branch(config, path, trunk, resume_command="again")
    assert run.metrics(0) == trunk.metrics(0)


def test_a_study_lacking_a_run_names_it(study: tuple[Path, dict[str, list[tuple[int, str]]]]):
    with pytest.raises(UserError, match=r"seed-1/sft/summary.json: no such file"):
        study_figures(study[0], ARMS, [0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a table for each arm"),
        ("[sft.dpo]\nbeta = 0.2", "sft: must be a name of letters, digits and _, and not sft"),
        ('["../up".dpo]\nbeta = 0.2', "must be a name of letters"),
        ("[strong.rpo]\nbeta = 1", "strong: may set keys of correct, dpo, generate, pairs and run.num_iterations only"),
        ("[strong.sft]\nnum_epochs = 9", "strong: may set keys of"),
        ("[strong.run]\nseed = 7", "strong: may set keys of"),
        ('[strong.dpo]\nmethod = "lora"', "and not dpo.lora or dpo.method"),
        ("[strong]\ndpo = 1", "strong: must hold tables of keys"),
        ("[strong", "cannot be read as TOML"),
    ],
)
def test_arms_that_cannot_be_are_refused(tmp_path: Path, text: str, message: str):
    file = tmp_path / "arms.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_arms(file)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dpo": {"beta": -1}}, r"arm strong: dpo\.beta = -1: must be"),
        ({"dpo": {"betta": 1}}, r"arm strong: dpo\.betta: unknown key, did you mean dpo\.beta\?"),
    ],
)
def test_an_arm_without_a_valid_config_is_found_before_anything_is_played(
    tmp_path: Path, keys: dict[str, dict[str, float]], message: str
):
    with pytest.raises(UserError, match=message):
        arm_configs(BASE, {"strong": keys}, [0], tmp_path)


def test_an_arm_changes_what_it_names_and_nothing_beside_it(tmp_path: Path):
    base = small_config(generate={"sampling": {"temperature": 0.7, "max_tokens": 110}})
    arms = {"hot": {"generate": {"sampling": {"temperature": 1.2}}}}
    hot = arm_config(base, "hot", arms, 0, tmp_path)
    assert (hot.generate.sampling.temperature, hot.generate.sampling.max_tokens) == (1.2, 110)
    alone = arm_config(base, "self_dpo", ARMS, 0, tmp_path)
    assert alone.pairs.shares == {"correction": 0.75, "repair": 0.1, "keep": 0.15}


def test_a_finished_run_with_another_config_is_not_taken_for_this_one(
    study: tuple[Path, dict[str, list[tuple[int, str]]]],
):
    run = arm_run(study[0], 0, "self_dpo")
    config = arm_config(small_config(dpo={"beta": 9.0}), "self_dpo", ARMS, 0, study[0])
    with pytest.raises(UserError, match=r"other config: dpo\.beta is 9\.0, was 0\.1"):
        is_finished(run, config)


def test_every_ablation_is_an_arm_that_differs_from_the_first(tmp_path: Path):
    configs_dir = Path(__file__).parents[2] / "jobs" / "configs"
    base = load_config(configs_dir / "study_clinic.toml", [])
    configs = arm_configs(base, read_arms(configs_dir / "arms" / "ablations.toml"), [0], tmp_path)
    keys = [config.model_dump(exclude={"run": {"name"}}) for config in configs.values()]
    assert len(keys) > 6
    assert all(one != other for one, other in combinations(keys, 2))


def test_a_run_that_holds_something_else_is_not_taken_over(tmp_path: Path):
    (tmp_path / "seed-0" / "self_dpo").mkdir(parents=True)
    (tmp_path / "seed-0" / "self_dpo" / "mine.txt").write_text("keep me")
    trunk = RunDirectory.create(tmp_path / "trunk", new_record({}), resume_command="again")
    config = arm_config(BASE, "self_dpo", ARMS, 0, tmp_path)
    with pytest.raises(UserError, match="exists and is no run"):
        open_branch(config, tmp_path / "seed-0" / "self_dpo", trunk, resume_command="again")
