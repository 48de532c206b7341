"""How a policy is to be asked, as it was trained and measured: the prompt, and commands for transformers and vLLM."""

from medcritical_ray.export.facts import Facts, Form
from medcritical_ray.prompts import solve_prompt
from medcritical_ray.records import UnkeyedQuestion, lettered

_EXAMPLE = UnkeyedQuestion(
    id="example",
    stem="Which vitamin does the skin make in sunlight?",
    options=lettered(["vitamin A", "vitamin C", "vitamin D"]),
)


def how_to_ask(facts: Facts, form: Form, *, has_chat_template: bool) -> str:
    """A section of the model card. DIRECTORY stands for wherever the export is, BASE for the model below an adapter."""
    return "\n\n".join(
        [
            "It was trained on, and measured with, prompts of this form. Its answers are numbered steps and a last "
            "line that names an option's text and letter, as in `Answer: vitamin D (C)`.",
            _fenced("text", solve_prompt(_EXAMPLE)),
            _sent_as(has_chat_template=has_chat_template),
            _fenced("python", _python(facts, form, has_chat_template=has_chat_template)),
            _fenced("sh", _server(facts, form)),
            _measured(facts, form),
        ]
    )


def _sent_as(*, has_chat_template: bool) -> str:
    if has_chat_template:
        return (
            "Send it as the only message, of the user: the chat template gives it the tokens that the model was "
            "trained on, in transformers and at `/v1/chat/completions` of vLLM."
        )
    return (
        "Send it with a line break at its end, in vLLM to `/v1/completions`: the tokenizer has no chat template, and "
        "none would give the prompt the tokens that the model was trained on."
    )


def _python(facts: Facts, form: Form, *, has_chat_template: bool) -> str:
    inputs = 'inputs = tokenizer(prompt + "\\n", return_tensors="pt")'
    if has_chat_template:
        inputs = """\
inputs = tokenizer.apply_chat_template(
    [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
)"""
    penalty = ", repetition_penalty=1.0" if form == "adapter" else ""
    return f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")
model = AutoModelForCausalLM.from_pretrained("DIRECTORY")
prompt = "..."  # as above
{inputs}
written = model.generate(**inputs, do_sample=False{penalty}, max_new_tokens={_max_tokens(facts)})
print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


def _server(facts: Facts, form: Form) -> str:
    engines = facts.config.engines
    served = "DIRECTORY"
    if form == "adapter":
        rank = 1 << max(3, ((facts.lora_rank or 1) - 1).bit_length())  # vLLM takes powers of two, from 8
        served = (
            f"BASE --tokenizer DIRECTORY --enable-lora --lora-modules policy=DIRECTORY --max-lora-rank {rank} "
            "--generation-config vllm"
        )
    return f"vllm serve {served} --dtype {engines.dtype} --max-model-len {engines.max_model_len}"


def _measured(facts: Facts, form: Form) -> str:
    text = (
        f"The figures below are of greedy answers (temperature 0) of at most {_max_tokens(facts)} tokens, by engines "
        f"with weights of type {facts.config.engines.dtype}"
    )
    if form == "merged":
        return f"{text} and the adapter beside them; merging rounds, which may change single answers."
    return f"{text}."


def _max_tokens(facts: Facts) -> int:
    return facts.config.generate.sampling.max_tokens


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
