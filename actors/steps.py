"""That a training's first worker has started, and its steps' metrics, on their way from there to the driver."""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medcritical_ray.game import OnStep

_GRACE_S = 30.0


@ray.remote(num_cpus=0, max_restarts=0)
class StepsActor:
    """Holds the steps that the driver has not taken yet."""

    def __init__(self) -> None:
        self._has_started = False
        self._steps: list[dict[str, float]] = []

    def start(self) -> None:
        self._has_started = True

    def add(self, metrics: dict[str, float]) -> None:
        self._steps.append(metrics)

    def take(self) -> tuple[bool, list[dict[str, float]]]:
        steps, self._steps = self._steps, []
        return self._has_started, steps


class Steps:
    """Shows `on_step` the steps as they come, and again from the first if the training starts again; `has_started` is
    whether it has been heard of."""

    def __init__(self, on_step: OnStep) -> None:
        here = ray.get_runtime_context().get_node_id()
        actor_class: Any = StepsActor  # its decorator hides its options from the type checker
        self.actor: Any = actor_class.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)  # it lives and dies with the driver
        ).remote()
        self.has_started = False
        self._on_step = on_step
        self._asked: Any = None

    def show_new(self, timeout_s: float = 0.0) -> None:
        """Shows what the last question has brought, if there is an answer within that time."""
        self._asked = self._asked or self.actor.take.remote()
        answered, _ = ray.wait([self._asked], timeout=timeout_s)
        if answered:
            (self.has_started, steps), self._asked = ray.get(self._asked), None
            for metrics in steps:
                self._on_step(metrics)

    def show_rest(self) -> None:
        """After the training: what was asked before it ended, and what has come since."""
        self.show_new(_GRACE_S)
        self.show_new(_GRACE_S)

    def close(self) -> None:
        ray.kill(self.actor)
