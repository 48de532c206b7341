"""Corrections by a large model, which is shown question and attempt, and told that an attempt is wrong only if it is to
be repaired."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from medcritical_ray.config import EndpointConfig
from medcritical_ray.corrections import format_keep
from medcritical_ray.language import CHINESE, ENGLISH, language_of
from medcritical_ray.prompts import correction_prompt
from medcritical_ray.teaching.endpoint.asking import ask_until_it_counts
from medcritical_ray.teaching.endpoint.budget import charges_of
from medcritical_ray.teaching.endpoint.client import EndpointClient, Messages, in_bulk
from medcritical_ray.teaching.endpoint.responses import ResponseStore
from medcritical_ray.teaching.reviews import Charges, Submission, Tally, Written

_FORM = {
    ENGLISH: """You are a physician who teaches. You are shown an exam question and a student's attempt at it, in
numbered steps. Name its first wrong step, say why it is wrong, and redo the attempt from that step on, in exactly this
form, in the language of the question, and write nothing else:

Check: step 2 is wrong: why, in one line
Step 2: the step as it should be, in one line
Step 3 (key): one line; mark a step on which the answer turns as key
Answer: the text of the right option (its letter)

The steps before it stand: do not write them again. Take as many further steps as it needs, up to step {max_steps}. If
every step is right and only the answer is not, begin with "Check: the answer is wrong: why, in one line" and write the
answer's line below it. If several options are right, write their texts separated by "; " and their letters together:
Answer: fever; cough (AC)""",
    CHINESE: """你是一名从事教学的医师。下面是一道考题和一名学生分步写出的解答。
请指出第一个错误的步骤，说明错在哪里，并从该步起重做。请严格按照以下格式，使用题目的语言，不写任何其他内容：

检查: 步骤 2 有误: 用一行说明原因
步骤 2: 用一行写出正确的步骤
步骤 3 (关键): 一行；决定答案的步骤标为关键
答案: 正确选项的内容 (其字母)

之前的步骤不变，不要重写。其后步骤数视需要而定，最多到步骤 {max_steps}。如果每一步都正确、只有答案错误，则以
"检查: 答案有误: 用一行说明原因"开头，其下写答案一行。如有多个正确选项，各项内容之间用"; "隔开，字母写在一起，例如：
答案: 发热; 咳嗽 (AC)""",
}
_MAY_KEEP = {
    ENGLISH: f"""

If every step and the answer are right, write only: {format_keep(ENGLISH)}""",
    CHINESE: f"""

如果每一步和答案都正确，只写：{format_keep(CHINESE)}""",
}


class EndpointReviewer:
    """Has the endpoint correct, within its budget, and keeps every response in `responses`, a file.

    `advance` is told how many submissions are done, and of how many.
    """

    def __init__(self, config: EndpointConfig, responses: Path, advance: Callable[[int, int], None]) -> None:
        self._config = config
        self._responses = responses
        self._advance = advance

    def corrections(self, submissions: Sequence[Submission], iteration: int) -> list[Written]:
        """A right attempt is kept, and nobody is asked."""
        with closing(ResponseStore(self._responses)) as store:
            return asyncio.run(self._correct(submissions, EndpointClient(self._config, store, _purpose(iteration))))

    def charges(self, iteration: int, tally: Tally) -> Charges:
        with closing(ResponseStore(self._responses)) as store:
            return charges_of(store.usage(_purpose(iteration)), self._config.prices)

    async def _correct(self, submissions: Sequence[Submission], client: EndpointClient) -> list[Written]:
        num_done = 0

        def advance() -> None:
            nonlocal num_done
            num_done += 1
            self._advance(num_done, len(submissions))

        async with client:
            return await in_bulk(
                submissions,
                lambda each: corrected(client, each, self._config),
                num_workers=self._config.max_in_flight,
                advance=advance,
            )


async def corrected(client: EndpointClient, submission: Submission, config: EndpointConfig) -> Written:
    """Asks for a correction, and for revisions until one counts or `max_revisions` are used up."""
    keep = format_keep(language_of(submission.question))
    if submission.fault(keep) is None:
        return Written(text=keep, fault=None, num_asked=0)
    messages = first_messages(submission, config)
    return await ask_until_it_counts(client, messages, submission.fault, max_revisions=config.max_revisions)


def first_messages(submission: Submission, config: EndpointConfig) -> Messages:
    prompt = correction_prompt(submission.question, submission.attempt, submission.task)
    asked = [{"role": "user", "content": prompt}]
    if not config.explain_form:
        return asked
    language = language_of(submission.question)
    form = _FORM[language].format(max_steps=config.max_steps)
    may_keep = _MAY_KEEP[language] if submission.task == "check" else ""
    return [{"role": "system", "content": form + may_keep}, *asked]


def _purpose(iteration: int) -> str:
    return f"corrections of iteration {iteration}"
