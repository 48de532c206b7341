"""The config that policies are evaluated with: a file's, that of the run that published the policy, or a fitted one."""

from pathlib import Path

from medcritical_ray.config import Config
from medcritical_ray.config_files import load_config, with_overrides
from medcritical_ray.context import check_context, longest_prompt_tokens, model_positions
from medcritical_ray.engines.served import ServedPolicy, served_policy
from medcritical_ray.errors import UserError
from medcritical_ray.files import read_json
from medcritical_ray.model_files import ADAPTER_CONFIG, check_model
from medcritical_ray.planning.fit import ClusterResources, check_engines_fit
from medcritical_ray.question_set import QuestionSet
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.policies import COMPLETE, MANIFEST
from medcritical_ray.run.state import run_config

CONFIGS = Path(__file__).parents[1] / "configs"


def checked_policy(directory: Path) -> ServedPolicy:
    """The policy in a directory, all of whose files are there. Raises UserError."""
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory: must be that of a model or of a published policy")
    if (directory / MANIFEST).exists() and not (directory / COMPLETE).exists():
        raise UserError(f"{directory} was never published completely: it has no {COMPLETE}; choose another version")
    policy = served_policy(0, directory)
    check_model(policy.model_dir)
    return policy


def evaluation_config(
    file: Path | None,
    overrides: list[str],
    models: list[Path],
    questions: Path,
    *,
    run: RunDirectory | None,
    has_gpu: bool,
) -> tuple[Config, str]:
    """The config and where it comes from: `file`, else the run, else the one that is shipped, fitted to the models.

    Raises UserError if the config is wrong or its context too short for the questions.
    """
    source = file or CONFIGS / ("evaluate_gpu.toml" if has_gpu else "evaluate_cpu.toml")
    origin = str(source)
    if file is None and run is not None:
        origin = str(run.path / "run.json")
        config = with_overrides(run_config(run, "name one with --config"), overrides, origin)
    else:
        config = load_config(source, overrides)
    corrected = config.evaluate.corrected_share > 0
    asked = QuestionSet.whole(questions)
    longest = {model: longest_prompt_tokens(model, asked, corrected=corrected) for model in models}
    if file is None and run is None:
        config = load_config(source, [*fitted(config, longest), *overrides])
    for model, num_tokens in longest.items():
        check_context(config, model, num_tokens, corrected=corrected)
    return config, origin


def fitted(config: Config, longest: dict[Path, int]) -> list[str]:
    """Overrides for the context, which no model's may exceed, and for the attempts, which must leave room for
    corrections. `longest` has the tokens of the longest prompt by model. Raises UserError if one leaves no room."""
    limit = config.engines.max_model_len
    context = min(limit, *(model_positions(model) or limit for model in longest))
    model = max(longest, key=longest.__getitem__)
    room = (context - longest[model]) // 2
    if room < 1:
        raise UserError(
            f"{model}: a context of {context} tokens is too short: the longest prompt has {longest[model]}, and an "
            "attempt and its correction must follow; take shorter questions or another model"
        )
    attempt = min(config.generate.sampling.max_tokens, room)
    correction = min(config.correct.sampling.max_tokens, room)
    return [
        f"engines.max_model_len={context}",
        f"generate.sampling.max_tokens={attempt}",
        f"correct.sampling.max_tokens={correction}",
    ]


def config_of_policy(config: Config, policy: ServedPolicy, name: str) -> Config:
    """The config for the engines of one policy, made for adapters of its rank or for none; `name` tells its engines
    from others."""
    dpo = config.dpo.model_copy(update={"method": "full"})
    if policy.adapter_dir:
        rank = read_json(policy.adapter_dir / ADAPTER_CONFIG)["r"]
        dpo = config.dpo.model_copy(
            update={"method": "lora", "lora": config.dpo.lora.model_copy(update={"rank": rank})}
        )
    parts = {
        "run": config.run.model_copy(update={"name": f"evaluate-{name}"}),
        "sft": config.sft.model_copy(update={"method": "full"}),
        "dpo": dpo,
        "engines": config.engines.model_copy(update={"separate_corrector": 0}),
    }
    return config.model_copy(update=parts)


def check_policies_fit(config: Config, policies: list[ServedPolicy], resources: ClusterResources) -> None:
    """Raises UserError, naming what is short and what to change, if the engines of one policy at a time do not fit."""
    served = [(config_of_policy(config, policy, ""), check_model(policy.model_dir)) for policy in policies]
    check_engines_fit(served, config.engines.num_engines, resources, knob="engines.num_engines")
