"""Configs as TOML: overrides, messages, and the files that come with the project."""

import tomllib
from pathlib import Path

import pytest

from medcritical_ray.config import Config
from medcritical_ray.config_files import dump_config, load_config, with_overrides
from medcritical_ray.errors import UserError

CONFIGS = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.toml"))


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path that messages show as "my.toml"."""
    monkeypatch.chdir(tmp_path)
    Path("my.toml").touch()
    return Path("my.toml")


def message_of(config_file: Path, text: str, *overrides: str) -> str:
    config_file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_config(config_file, list(overrides))
    return str(caught.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path):
    needs_path = 'kind = "file"' in path.read_text(encoding="utf-8")
    config = load_config(path, ["questions.path=questions.csv"] if needs_path else [])
    assert config.run.name != Config().run.name or path.name == "demo.toml"


def test_there_are_shipped_configs():
    assert {path.name for path in CONFIGS} >= {"demo.toml", "cmexam_cpu.toml"}


def test_the_shipped_7b_configs_differ_only_in_places_sizes_and_machines():
    sizes = {
        ("generate", "num_questions"),
        ("teacher", "num_questions"),
        ("questions", "num_train"),
        ("pairs", "max_pairs"),
    }
    places = {("run", "directory"), ("student", "path"), *(("questions", f"{of}path") for of in ("", "dev_", "test_"))}
    first, *others = (tomllib.loads(path.read_text("utf-8")) for path in CONFIGS if path.name.startswith("qwen2.5_7b_"))
    assert len(others) == 2
    for other in others:
        differing = {
            (part, key)
            for part in first.keys() - {"engines", "trainers", "cluster"}
            for key in first[part].keys() | other[part].keys()
            if first[part].get(key) != other[part].get(key)
        }
        assert differing <= sizes | places
        assert other.keys() == first.keys()


def test_the_shipped_config_for_real_questions_asks_for_their_path():
    path = next(path for path in CONFIGS if path.name == "cmexam_cpu.toml")
    with pytest.raises(UserError, match=r"questions\.path is not set: must name the file of questions"):
        load_config(path, [])


def test_a_file_that_sets_nothing_is_refused_unless_something_is_set_beside_it(config_file: Path):
    assert load_config(config_file, ["run.name=demo"]) == Config()
    message = message_of(config_file, "# nothing yet\n")
    assert message.startswith("my.toml: sets no key: must set some, such as questions.path")


@pytest.mark.parametrize(
    ("override", "value"),
    [("run.name=tuesday", "tuesday"), ('run.name="tuesday"', "tuesday"), ("run.name = a.b ", "a.b")],
)
def test_a_bare_word_is_a_string(config_file: Path, override: str, value: str):
    assert load_config(config_file, [override]).run.name == value


def test_an_override_is_read_as_toml(config_file: Path):
    overrides = ["dpo.beta=0.2", "dpo.early_stop=false", 'sft.lora.target_modules=["q_proj"]', "pairs.shares={own=1.0}"]
    config = load_config(config_file, overrides)
    assert config.dpo.beta == 0.2
    assert config.dpo.early_stop is False
    assert config.sft.lora.target_modules == ["q_proj"]
    assert config.pairs.shares == {"own": 1.0}


def test_an_override_wins_over_the_file_and_the_last_one_over_the_others(config_file: Path):
    config_file.write_text("[dpo]\nbeta = 0.3\nlearning_rate = 1e-4\n")
    config = load_config(config_file, ["dpo.beta=0.2", "dpo.beta=0.5"])
    assert (config.dpo.beta, config.dpo.learning_rate) == (0.5, 1e-4)


def test_a_config_that_is_there_is_overridden_as_one_in_a_file():
    assert with_overrides(Config(), ["dpo.beta=0.2"], "run.json") == Config.model_validate({"dpo": {"beta": 0.2}})
    with pytest.raises(UserError, match=r"^--set: dpo\.beta = -1: must be greater than 0$"):
        with_overrides(Config(), ["dpo.beta=-1"], "run.json")


def test_a_value_may_hold_an_equals_sign(config_file: Path):
    assert load_config(config_file, ["student.path=/models/a=b"]).student.path == "/models/a=b"


def test_a_config_survives_being_written_and_read(config_file: Path):
    overrides = ["student.fresh.num_layers=2", 'dpo.lora.target_modules=["q_proj"]', 'run.directory="a \\"quoted\\" é"']
    config = load_config(config_file, overrides)
    config_file.write_text(dump_config(config), encoding="utf-8")
    assert load_config(config_file, []) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dpo.beta = -1", "my.toml: dpo.beta = -1: must be greater than 0"),
        ("run.num_iterations = true", "my.toml: run.num_iterations = true: must be of type integer"),
        ("dpo.method = 'half'", "my.toml: dpo.method = \"half\": must be 'full' or 'lora'"),
        ("dpo.lora = 3", "my.toml: dpo.lora = 3: must be a table"),
        ("dpo.beta = nan", "my.toml: dpo.beta = NaN: must be a finite number"),
        ("run.seed = 1979-05-27", 'my.toml: run.seed = "1979-05-27": must be of type integer'),
        ("pairs.shares.own = 0.9", "my.toml: pairs.shares: must sum to 1, not to 0.9"),
        (
            "pairs.shares.teacher = 1.0",
            "my.toml: pairs.shares.teacher: the key must be 'correction', 'own', 'repair' or 'keep'",
        ),
        (
            "pairs.min_agreement = 9",
            "my.toml: pairs.min_agreement = 9: must be at most correct.num_corrections = 4",
        ),
        ("dpo.bata = 1", "my.toml: dpo.bata: unknown key, did you mean dpo.beta?"),
        ("pair.mode = 'step'", "my.toml: pair: unknown key, did you mean pairs?"),
        ("beta = 1", "my.toml: beta: unknown key, did you mean dpo.beta?"),
        (
            "generate.max_tokens = 1",
            "my.toml: generate.max_tokens: unknown key, did you mean generate.sampling.max_tokens?",
        ),
        (
            "trainers.zzz = 1",
            "my.toml: trainers.zzz: unknown key, must be one of trainers.num_workers, trainers.num_cpus,",
        ),
        ("[dpo", "my.toml: not valid TOML: Expected ']' at the end of a table declaration (at end of document)"),
        ("a = 1\nb = = 2", "my.toml: not valid TOML: Invalid value (at line 2, column 5)"),
    ],
)
def test_a_bad_file_is_told_with_file_key_value_and_what_is_allowed(config_file: Path, text: str, expected: str):
    assert message_of(config_file, text).startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("dpo.beta=-1", "--set: dpo.beta = -1: must be greater than 0"),
        ("dpo.beta=.2", '--set: dpo.beta = ".2": must be of type number'),
        ("dpo.lora={rnak=2}", "--set: dpo.lora.rnak: unknown key, did you mean dpo.lora.rank?"),
        ("dpo.beta", "--set dpo.beta: must look like dpo.beta=0.2"),
        ("=3", "--set =3: must look like dpo.beta=0.2"),
        ("dpo..beta=3", "--set dpo..beta=3: must look like dpo.beta=0.2"),
        ("run.seed.x=3", "--set run.seed.x=3: seed holds a value, not keys"),
    ],
)
def test_a_bad_override_is_told_as_such(config_file: Path, override: str, expected: str):
    assert message_of(config_file, "[run]\nseed = 1\n", override) == expected


@pytest.mark.parametrize("address", ["https://me:hunter2@big.example/v1", "https://big.example/v1?api-key=hunter2"])
def test_a_secret_in_an_address_is_refused_and_not_shown(config_file: Path, address: str):
    message = message_of(config_file, f'teacher.endpoint = {{ base_url = "{address}", model = "big" }}')
    assert message.startswith("my.toml: teacher.endpoint.base_url: must hold no user, password or query")
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "address", ["localhost:8000/v1", "big.example", "http://", "http://[bad/v1", "http://big.example:99999/v1"]
)
def test_what_is_no_address_is_refused(config_file: Path, address: str):
    message = message_of(config_file, f'teacher.endpoint = {{ base_url = "{address}", model = "big" }}')
    assert message == "my.toml: teacher.endpoint.base_url: must be an address such as https://api.openai.com/v1"


@pytest.mark.parametrize("rest", ['model = "big", max_cost = 1.0', "max_cost = 1.0"])
def test_what_is_wrong_with_an_endpoint_shows_no_secret_in_its_address(config_file: Path, rest: str):
    address = "https://big.example/v1?api-key=hunter2"
    message = message_of(config_file, f'teacher.endpoint = {{ base_url = "{address}", {rest} }}')
    assert message.startswith("my.toml: teacher.endpoint")
    assert "hunter2" not in message


@pytest.mark.parametrize("key", ["sk-hunter2", "hunter2", "Hunter2hunter2"])
def test_a_key_in_place_of_its_variable_is_refused_and_not_shown(config_file: Path, key: str):
    text = f'teacher.endpoint = {{ base_url = "http://big/v1", model = "big", api_key_variable = "{key}" }}'
    message = message_of(config_file, text)
    allowed = "must be the name of an environment variable, in capitals, not a key"
    assert message.endswith(f"teacher.endpoint.api_key_variable: {allowed}")
    assert "unter2" not in message


def test_several_problems_make_one_line(config_file: Path):
    assert message_of(config_file, "dpo.beta = -1", "run.seed=-2") == (
        "--set: run.seed = -2: must be greater than or equal to 0; my.toml: dpo.beta = -1: must be greater than 0"
    )


def test_a_long_value_is_shortened(config_file: Path):
    message = message_of(config_file, f"run.seed = '{'x' * 1000}'")
    assert len(message) < 200
    assert "\n" not in message


def test_a_missing_file_is_told():
    with pytest.raises(UserError, match=r"^nowhere/my\.toml: no such file$"):
        load_config("nowhere/my.toml", [])


def test_a_directory_is_no_config(tmp_path: Path):
    with pytest.raises(UserError, match=r"is a directory: must be a TOML file$"):
        load_config(tmp_path, [])


def test_a_binary_file_is_no_config(config_file: Path):
    config_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        load_config(config_file, [])


def test_what_does_not_fit_together_is_told_beside_what_is_wrong_by_itself(config_file: Path):
    message = message_of(config_file, 'questions.kind = "file"\ndpo.beta = -1\n', "run.seed", "x.y=1")
    assert message.startswith(
        "--set run.seed: must look like dpo.beta=0.2; my.toml: dpo.beta = -1: must be greater than 0"
    )
    assert "; --set: x: unknown key, " in message
    assert "; my.toml: questions.path is not set: must name the file of questions" in message


def test_what_may_come_of_a_faulty_key_alone_is_not_told(config_file: Path):
    text = "generate.sampling.max_tokens = -5\ncorrect.sampling.max_tokens = 8\nengines.max_model_len = 64\n"
    message = message_of(config_file, text)
    assert message == "my.toml: generate.sampling.max_tokens = -5: must be greater than or equal to 1"


def test_what_does_not_fit_together_is_told_but_for_what_names_a_faulty_key(config_file: Path):
    text = "generate.sampling.max_tokens = -5\nengines.max_model_len = 64\nengines.required_engines = 7\n"
    assert message_of(config_file, text) == (
        "my.toml: generate.sampling.max_tokens = -5: must be greater than or equal to 1; "
        "my.toml: engines.required_engines = 7: must be at most engines.num_engines = 1"
    )


def test_whoever_follows_every_word_of_a_refusal_is_not_told_of_another(config_file: Path):
    shares = "pairs.shares = { repair = 1.0 }\npairs.min_agreement = 9\n"
    told = message_of(config_file, shares)
    assert (
        told
        == "my.toml: correct.num_corrections = 4: must be above pairs.min_agreement = 9 where pairs.shares has 'repair'"
    )
    config_file.write_text(f"{shares}correct.num_corrections = 10\n")
    load_config(config_file, [])
