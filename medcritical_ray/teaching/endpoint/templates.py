"""Templates by a large model."""

from functools import partial

from medcritical_ray.config import EndpointConfig
from medcritical_ray.language import CHINESE, ENGLISH, language_of
from medcritical_ray.prompts import question_text, solve_prompt
from medcritical_ray.questions import stem_hash
from medcritical_ray.records import Question, UnkeyedQuestion
from medcritical_ray.teaching.distilled import Distilled
from medcritical_ray.teaching.endpoint.asking import ask_until_it_counts
from medcritical_ray.teaching.endpoint.client import EndpointClient, Messages
from medcritical_ray.teaching.teachers import fault_of_template

_FORM = {
    ENGLISH: """You are a physician who teaches. Solve the exam question in exactly this form, in the language of
the question, and write nothing else:

Thought: in one line, how a question of this kind is attacked; what would hold for others like it
Step 1: one line
Step 2 (key): one line; mark a step on which the answer turns as key
Answer: the text of the right option (its letter)

Take as many steps as it needs, up to {max_steps}. If several options are right, write their texts separated by "; " and
their letters together: Answer: fever; cough (AC)""",
    CHINESE: """你是一名从事教学的医师。请严格按照以下格式解答考题，使用题目的语言，不写任何其他内容：

思路: 用一行说明这类题应如何着手，对同类题也适用
步骤 1: 一行
步骤 2 (关键): 一行；决定答案的步骤标为关键
答案: 正确选项的内容 (其字母)

步骤数视需要而定，最多 {max_steps} 步。如有多个正确选项，各项内容之间用"; "隔开，字母写在一起，例如：
答案: 发热; 咳嗽 (AC)""",
}


async def distilled(client: EndpointClient, question: Question, config: EndpointConfig) -> Distilled:
    """Asks for the question's template, and for revisions until one counts or `max_revisions` are used up.

    The model is shown the question without its key. A template counts if it reaches the key and gives nothing away.
    """
    messages = first_messages(question.unkeyed(), config)
    fault = partial(fault_of_template, question)
    written = await ask_until_it_counts(client, messages, fault, max_revisions=config.max_revisions)
    return Distilled(
        question_id=question.id,
        stem_hash=stem_hash(question.stem),
        template=None if written.fault else written.text,
        reason=written.fault,
        num_asked=written.num_asked,
    )


def first_messages(question: UnkeyedQuestion, config: EndpointConfig) -> Messages:
    if not config.explain_form:
        return [{"role": "user", "content": solve_prompt(question)}]
    form = _FORM[language_of(question)]
    return [
        {"role": "system", "content": form.format(max_steps=config.max_steps)},
        {"role": "user", "content": question_text(question)},
    ]
