"""What may still be spent: a request is sent only if the budget holds even should it take all that it may."""

import asyncio
from collections.abc import Mapping
from typing import Any

from medcritical_ray.config import EndpointConfig, Price
from medcritical_ray.errors import MedCriticalError, UserError
from medcritical_ray.teaching.endpoint.responses import Usage
from medcritical_ray.teaching.reviews import Charges

_TOKENS_PER_MESSAGE = 16
"""More than any chat template adds to a message."""


class BudgetSpent(MedCriticalError, RuntimeError):
    """The next request might exceed the budget."""


class Budget:
    """Tokens and money of one directory of responses, those of earlier processes included.

    While a request is under way, all that it may take at most is set aside for it. Whoever wants to send one while too
    much is set aside waits for what others give back.
    """

    def __init__(self, config: EndpointConfig, spent: Mapping[str, Usage]) -> None:
        """Raises UserError if there is a budget of money, and a model that was paid before has no price."""
        unpriced = sorted(set(spent) - set(config.prices))
        if config.max_cost is not None and unpriced:
            raise UserError(
                f"teacher.endpoint.max_cost = {config.max_cost:g} needs the price of {', '.join(unpriced)}, too, which "
                "has answered here before: set teacher.endpoint.prices"
            )
        self._config = config
        self._tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in spent.values())
        self._cost = cost_of(spent, config.prices) or 0.0
        self._num_under_way = 0
        self._given_back = asyncio.Condition()

    async def set_aside(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Raises BudgetSpent, naming the key to raise, if the budget might not hold for one more request."""
        async with self._given_back:
            while (limit := self._limit_reached(prompt_tokens, completion_tokens)) and self._num_under_way:
                await self._given_back.wait()
            if limit:
                raise BudgetSpent(f"{limit} is spent")
            self._num_under_way += 1
            self._tokens += prompt_tokens + completion_tokens
            self._cost += self._price(prompt_tokens, completion_tokens)

    async def give_back(self, prompt_tokens: int, completion_tokens: int) -> None:
        """What was set aside for a request and not taken; the request is over."""
        async with self._given_back:
            self._num_under_way -= 1
            self._tokens -= prompt_tokens + completion_tokens
            self._cost -= self._price(prompt_tokens, completion_tokens)
            self._given_back.notify_all()

    def _limit_reached(self, prompt_tokens: int, completion_tokens: int) -> str | None:
        config = self._config
        tokens = self._tokens + prompt_tokens + completion_tokens
        if config.max_tokens_spent is not None and tokens > config.max_tokens_spent:
            return f"teacher.endpoint.max_tokens_spent = {config.max_tokens_spent:,}"
        if config.max_cost is not None and self._cost + self._price(prompt_tokens, completion_tokens) > config.max_cost:
            return f"teacher.endpoint.max_cost = {config.max_cost:g}"
        return None

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        price = self._config.prices.get(self._config.model)
        return _cost(price, prompt_tokens, completion_tokens) if price else 0.0


def cost_of(usage: Mapping[str, Usage], prices: Mapping[str, Price]) -> float | None:
    """What the calls cost, in the currency of the prices; None, which is not nothing, if a model has no price."""
    if any(model not in prices for model in usage):
        return None
    return sum((_cost(prices[model], used.prompt_tokens, used.completion_tokens) for model, used in usage.items()), 0.0)


def most_prompt_tokens(messages: list[dict[str, str]]) -> int:
    """At least as many tokens as the messages can have: no tokenizer in use makes more of a text than it has bytes."""
    return sum(len(message["content"].encode()) + _TOKENS_PER_MESSAGE for message in messages)


def charges_of(usage: Mapping[str, Usage], prices: Mapping[str, Price]) -> Charges:
    """What the calls of all models took together."""
    return Charges(
        calls=sum(used.calls for used in usage.values()),
        prompt_tokens=sum(used.prompt_tokens for used in usage.values()),
        completion_tokens=sum(used.completion_tokens for used in usage.values()),
        written_chars=sum(used.written_chars for used in usage.values()),
        cost=cost_of(usage, prices),
    )


def ledger(usage: Mapping[str, Usage], prices: Mapping[str, Price]) -> dict[str, Any]:
    """The charges in all and by model."""
    models = {model: charges_of({model: used}, prices).to_dict() for model, used in usage.items()}
    return {**charges_of(usage, prices).to_dict(), "models": models}


def _cost(price: Price, prompt_tokens: int, completion_tokens: int) -> float:
    return (prompt_tokens * price.input_per_million + completion_tokens * price.output_per_million) / 1e6
