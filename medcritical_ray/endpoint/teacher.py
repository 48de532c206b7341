"""Templates by a large model: asked for in one form, and asked for again, told only that they are wrong."""

from medcritical_ray.config import EndpointConfig
from medcritical_ray.distilled import Distilled
from medcritical_ray.endpoint.budget import BudgetSpent
from medcritical_ray.endpoint.client import EndpointClient, Messages, NotAnswered
from medcritical_ray.prompts import question_text, solve_prompt
from medcritical_ray.records import Question, UnkeyedQuestion
from medcritical_ray.teachers import fault_of_template

_FORM = """You are a physician who teaches. Solve the exam question in exactly this form, in the language of
the question, and write nothing else:

Thought: in one line, how a question of this kind is attacked; what would hold for others like it
Step 1: one line
Step 2 (key): one line; mark a step on which the answer turns as key
Answer: the text of the right option (its letter)

Take as many steps as it needs, up to {max_steps}. If several options are right, write their texts separated by "; " and
their letters together: Answer: fever; cough (AC)"""

_REVISE = "That is wrong. Find the mistake and write the whole solution again, in the same form."


async def distilled(client: EndpointClient, question: Question, config: EndpointConfig) -> Distilled:
    """Asks for the question's template, and for revisions until one counts or `max_revisions` are used up.

    The model is shown the question without its key. A template counts if it reaches the key and gives nothing away.
    """
    messages = first_messages(question.unkeyed(), config)
    reason = ""
    for num_asked in range(1, config.max_revisions + 2):
        try:
            response = await client.ask(messages)
        except NotAnswered as error:
            return _rejected(question, f"endpoint: {error}", num_asked)
        except BudgetSpent as error:
            return _rejected(question, f"budget: {error}", num_asked)
        text = response.text.strip()
        reason = "cut off" if not response.finished else fault_of_template(question, text) or ""
        if not reason:
            return Distilled(question_id=question.id, template=text, reason=None, num_asked=num_asked)
        messages = [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": _REVISE}]
    return _rejected(question, reason, config.max_revisions + 1)


def first_messages(question: UnkeyedQuestion, config: EndpointConfig) -> Messages:
    if not config.explain_form:
        return [{"role": "user", "content": solve_prompt(question)}]
    return [
        {"role": "system", "content": _FORM.format(max_steps=config.max_steps)},
        {"role": "user", "content": question_text(question)},
    ]


def _rejected(question: Question, reason: str, num_asked: int) -> Distilled:
    return Distilled(question_id=question.id, template=None, reason=reason, num_asked=num_asked)
