"""Weights, tokenizer and settings of a policy in a directory that plain transformers, PEFT and vLLM load."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from medcritical_ray.chat import load_tokenizer, pin_tokenizer, prompt_template
from medcritical_ray.errors import UserError
from medcritical_ray.export.facts import Form
from medcritical_ray.files import read_json
from medcritical_ray.model_files import ADAPTER_CONFIG, check_model, hash_of_weights
from medcritical_ray.run.policies import Policy, verify_policy
from medcritical_ray.training.models import load_merged, save_policy


def check_base(policy: Policy, student_hash: str | None) -> None:
    """Raises UserError unless the model below an adapter is there and is the one that the adapter was trained on.

    `student_hash` is the hash of the student's weights, as the run has it. Full weights need nothing below.
    """
    base = policy.base_path
    if base is None:
        return
    if not base.is_dir():
        raise UserError(
            f"{policy.path} is an adapter on {base.resolve()}, which is gone: put that model back at its place"
        )
    check_model(base)
    if base.parent == policy.path.parent:
        verify_policy(base)
    elif student_hash and hash_of_weights(base) != student_hash:
        raise UserError(
            f"{policy.path} is an adapter on {base.resolve()}, whose weights are not those of the run's student any "
            "more: put these back at their place"
        )


class Written(NamedTuple):
    """What an exported directory holds."""

    form: Form
    has_chat_template: bool


def write_model(policy: Policy, directory: Path, *, merge: bool, base_name: str | None) -> Written:
    """Writes a checked policy into an existing, empty directory.

    An adapter stays one, on the model `base_name` or else on the directory that it was trained on, or is merged.
    Nothing that is written shares its bytes with the run.
    """
    disable_progress_bar()
    base = policy.base_path
    tokenizer = load_tokenizer(base or policy.path)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = prompt_template(tokenizer)
    if base and merge:
        save_policy(load_merged(policy.path, "auto"), tokenizer, directory)
        _let_others_read(directory)
    else:
        _copy_files(policy, directory)
        tokenizer.save_pretrained(directory)
    pin_tokenizer(directory)
    has_chat_template = tokenizer.chat_template is not None
    if base and not merge:
        _name_base(directory, base_name or str(base.resolve()))
        return Written("adapter", has_chat_template)
    _generation_config(base or policy.path, tokenizer).save_pretrained(directory)
    return Written("merged" if base else "full", has_chat_template)


def _copy_files(policy: Policy, directory: Path) -> None:
    """Contents alone: a link would be a way to change the run, and modes are those of new files."""
    for name in policy.manifest.files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(policy.path / name, directory / name)


def _let_others_read(directory: Path) -> None:
    """Gives weights the mode of any new file; safetensors writes them for their owner alone."""
    mode = (directory / "config.json").stat().st_mode
    for file in directory.glob("*.safetensors"):
        file.chmod(mode)


def _name_base(directory: Path, name: str) -> None:
    file = directory / ADAPTER_CONFIG
    file.write_text(json.dumps(read_json(file) | {"base_model_name_or_path": name}, indent=2) + "\n", encoding="utf-8")


def _generation_config(model_dir: Path, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Every token that ends a text, and nothing else: servers would apply a base's own temperature or repetition
    penalty where the user asks for none, and the policy was neither trained nor measured with them."""
    try:
        declared = GenerationConfig.from_pretrained(model_dir)
    except OSError:
        declared = GenerationConfig.from_model_config(AutoConfig.from_pretrained(model_dir, trust_remote_code=False))
    ids = declared.eos_token_id if isinstance(declared.eos_token_id, list) else [declared.eos_token_id]
    ends = list(dict.fromkeys(each for each in [tokenizer.eos_token_id, *ids] if each is not None))
    return GenerationConfig(
        bos_token_id=declared.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
