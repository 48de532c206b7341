"""A run's policies as a Ray Serve application."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ray import serve

from medcritical_ray.config import Config
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.serving.app import make_app
from medcritical_ray.serving.keys import read_keys
from medcritical_ray.serving.log import show_errors
from medcritical_ray.serving.service import Service

if TYPE_CHECKING:
    from starlette.applications import Starlette

DEPLOYMENT = "policies"


@serve.ingress()
class PolicyServer:
    """One engine with the policies of a run. Keys are read where they are needed, and nowhere else."""

    def __init__(self, run: Path, config: Config, keys: Path | list[bytes]) -> None:
        show_errors()
        self._keys = read_keys(keys) if isinstance(keys, Path) else keys
        self._service = Service(RunDirectory(run), config, on_death=self._end)

    def __serve_build_asgi_app__(self) -> "Starlette":
        return make_app(self._service, self._keys)

    def check_health(self) -> None:
        """Serve replaces whoever raises here."""
        self._service.check_health()

    def _end(self) -> None:
        """Has Serve start another in this one's place. Without an engine it would refuse requests faster than others
        answer them, and so be given most of them, until Serve has found out."""
        self._service.close()
        os._exit(1)


def make_application(run: Path, config: Config, keys: Path | list[bytes]) -> serve.Application:
    """`keys` is a file of those who may ask, or has the digests of their keys.

    An engine refuses what is too much for it in the API's own words, so Serve hands it more than it takes.

    Replicas have working directories of their own, so `run` must be absolute, and the file of keys is made so.
    """
    engines, limits = config.engines, config.serve
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=limits.num_replicas,
        max_ongoing_requests=4 * limits.max_requests,
        ray_actor_options={
            "num_cpus": engines.num_cpus,
            "num_gpus": engines.num_gpus,
            "label_selector": engines.labels,
        },
        max_constructor_retry_count=1,
        health_check_timeout_s=limits.answer_timeout_s,
        graceful_shutdown_timeout_s=limits.stop_timeout_s,
        logging_config={"enable_access_log": False},
    )
    return deployment(PolicyServer).bind(run, config, keys.resolve() if isinstance(keys, Path) else keys)
