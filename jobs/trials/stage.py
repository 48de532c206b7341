"""Where runs are played, disturbed or not: a directory, a cluster, and the words that describe the run."""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actors.local_cluster import LocalCluster
from jobs.trials.driver import Driver
from jobs.trials.trial import Trial
from medcritical_ray.chaos.outcome import Outcome
from medcritical_ray.chaos.schedule import Kill, Phase
from medcritical_ray.chaos.undisturbed import identity
from medcritical_ray.config import Config
from medcritical_ray.config_files import load_config
from medcritical_ray.errors import RunFailed
from medcritical_ray.files import read_json, write_json
from medcritical_ray.opening import run_path
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.record import record_of

UNDISTURBED = "undisturbed"


@dataclass(frozen=True)
class Stage:
    """Where the runs of one call are played: below the directory that the config's own run would have.

    `tell` shows a line, and returns the seconds since the beginning.
    """

    args: argparse.Namespace
    config: Config
    cluster: LocalCluster
    tell: Callable[[str], float]

    def undisturbed(self) -> RunDirectory:
        """The run without kills: played, unless it is there with the same config and code."""
        config = load_config(self.args.config, self._overrides(UNDISTURBED))
        wanted = identity(record_of(config))
        run, note = RunDirectory(self.root / UNDISTURBED), self.root / f"{UNDISTURBED}.json"
        if run.summary_file.exists() and note.exists() and read_json(note) == wanted:
            self.tell(f"{run.path} is there")
            return run
        self.tell(f"{run.path} is played")
        self.play(UNDISTURBED, [], [])
        if not run.summary_file.exists():
            raise RunFailed(f"{run.path} did not end, though nothing disturbed it: see {self._log(UNDISTURBED)}")
        write_json(note, wanted)
        return run

    def play(self, name: str, phases: list[Phase], kills: list[Kill]) -> tuple[RunDirectory, list[Outcome]]:
        """A run from its beginning, in place of an earlier one of that name, and what came of the kills it got."""
        run = RunDirectory(self.root / name)
        if run.exists():
            shutil.rmtree(run.path)
        self._log(name).unlink(missing_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        sets = [word for override in self._overrides(name) for word in ("--set", override)]
        driver = Driver(run, ["--config", str(self.args.config), *sets], self._log(name))
        return run, Trial(run, driver, self.cluster, phases, self._limit_s, self.tell).play(kills)

    @property
    def root(self) -> Path:
        return run_path(self.config)

    @property
    def _limit_s(self) -> float:
        """What the config allows for an answer, a step, the start of engines, and joining the cluster, together."""
        engines, trainers = self.config.engines, self.config.trainers
        waits = (engines.request_timeout_s, trainers.progress_timeout_s, engines.start_timeout_s)
        return sum(waits) + self.config.cluster.connect_timeout_s

    def _overrides(self, name: str) -> list[str]:
        return [*self.args.set, f"run.directory={self.root}", f"run.name={name}"]

    def _log(self, name: str) -> Path:
        return self.root / f"{name}.log"
