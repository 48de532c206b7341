"""Asks for a text until it counts, telling the model only that what it wrote is wrong, or cannot be read."""

from collections.abc import Callable

from medcritical_ray.teaching.endpoint.budget import BudgetSpent
from medcritical_ray.teaching.endpoint.client import EndpointClient, Messages, NotAnswered
from medcritical_ray.teaching.reviews import Written
from medcritical_ray.teaching.teachers import MISSES_KEY

CUT_OFF = "cut off"
_WRONG = "That is wrong. Find the mistake and write all of it again, in the same form."
_UNREADABLE = "That cannot be taken. Write all of it again, in the form asked for and in no other."


async def ask_until_it_counts(
    client: EndpointClient, messages: Messages, fault: Callable[[str], str | None], *, max_revisions: int
) -> Written:
    """The first text without a fault, or the last one, with its fault, after `max_revisions` revisions."""
    text, num_asked = "", 0
    while True:
        num_asked += 1
        try:
            response = await client.ask(messages)
        except NotAnswered as error:
            return Written(text=text, fault=f"endpoint: {error}", num_asked=num_asked)
        except BudgetSpent as error:
            return Written(text=text, fault=f"budget: {error}", num_asked=num_asked)
        text = response.text.strip()
        reason = fault(text) if response.finished else CUT_OFF
        if reason is None or not text or num_asked > max_revisions:
            return Written(text=text, fault=reason, num_asked=num_asked, num_tokens=response.completion_tokens)
        revise = _WRONG if reason.endswith(MISSES_KEY) else _UNREADABLE
        messages = [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": revise}]
