"""How a policy is to be asked, as it was trained and measured: the prompt, and commands for transformers and vLLM."""

from medcritical_ray.engines.served import served_rank
from medcritical_ray.export.facts import Facts, Form
from medcritical_ray.export.origins import exam_of
from medcritical_ray.language import CHINESE, ENGLISH, Language
from medcritical_ray.prompts import solve_prompt
from medcritical_ray.records import UnkeyedQuestion, lettered
from medcritical_ray.trace import format_answer

_EXAMPLES = {
    ENGLISH: UnkeyedQuestion(
        id="example",
        stem="Which vitamin does the skin make in sunlight?",
        options=lettered(["vitamin A", "vitamin C", "vitamin D"]),
    ),
    CHINESE: UnkeyedQuestion(
        id="example", stem="皮肤在日光下合成的维生素是", options=lettered(["维生素A", "维生素C", "维生素D"])
    ),
}


def how_to_ask(facts: Facts, form: Form, *, has_chat_template: bool) -> str:
    """A section of the model card. DIRECTORY stands for wherever the export is, BASE for the model below an adapter."""
    language = _language(facts)
    example = _EXAMPLES[language]
    last = format_answer([example.options[-1].text], example.options[-1].letter, language)
    return "\n\n".join(
        [
            "It was trained on, and measured with, prompts of this form. Its answers are numbered steps and a last "
            f"line that names an option's text and letter, as in `{last}`.",
            _fenced("text", solve_prompt(example)),
            _sent_as(has_chat_template=has_chat_template),
            _fenced("python", _python(facts, form, has_chat_template=has_chat_template)),
            _fenced("sh", _server(facts, form)),
            _measured(facts, form),
        ]
    )


def _language(facts: Facts) -> Language:
    """That of the example: Chinese if all of the run's questions are known to be."""
    return CHINESE if {exam_of(source).language for source in facts.sources} == {"zh"} else ENGLISH


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
        rank = served_rank(facts.lora_rank or 1)
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
