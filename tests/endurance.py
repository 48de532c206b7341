"""Many self-iterations of the smallest configuration in one process tree, and how much of anything grows with them:

python tests/endurance.py DIR 100     # plays the run in DIR, on real engines; writes DIR/endurance.json, prints growth

Between any two iterations it looks at this process and all below it, Ray's and vLLM's, and at the disk. Growth is the
slope of a least-squares line over the last half of the iterations, with its 95 % interval (Student's t), which takes
the deviations from the line for independent.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from scipy.stats import linregress, t

from jobs import self_play
from medcritical_ray.config import Config
from medcritical_ray.config_files import load_config
from medcritical_ray.run.directory import RunDirectory

CONFIG = Path(__file__).parents[1] / "jobs" / "configs" / "test_tiny.toml"
SETTINGS = (
    "run.name='endurance'",
    "run.keep_policies=2",
    "questions.num_train=40",
    "questions.num_dev=8",
    "questions.num_test=8",
    "questions.block_size=8",
    "teacher.num_questions=16",
    "sft.own_attempts=0",
    "generate.num_questions=12",
    "generate.sampling.max_tokens=60",
    "correct.sampling.max_tokens=60",
    "pairs.max_pairs=24",
    "evaluate.corrected_share=0.25",
    "trainers.num_workers=0",
    "cluster.num_cpus=2",
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What there is after an iteration. Memory is the sum over the processes: `rss_mib` counts a shared page in each of
    them, `pss_mib` shares it out. `weights_mib` are those of policies and trainings, `records_mib` all else of the run,
    which has rows and figures of every iteration; `ray_mib` is Ray's own directory, with its logs."""

    iteration: int
    seconds: float
    processes: int
    threads: int
    descriptors: int
    rss_mib: float
    pss_mib: float
    weights_mib: float
    records_mib: float
    ray_mib: float


class Watch:
    """Takes a sample whenever it is told that an iteration is over, and says so."""

    def __init__(self, run: Path, ray_directory: Path) -> None:
        self.samples: list[Sample] = []
        self._run = run
        self._ray = ray_directory
        self._since = time.monotonic()

    def look(self) -> None:
        now, tree = time.monotonic(), list(_tree(os.getpid()))
        weights = sum(_mib([*self._run.glob("policies/*/*"), *self._run.glob("iterations/*/*ed/*")]).values())
        self.samples.append(
            Sample(
                iteration=len(self.samples) + 1,
                seconds=now - self._since,
                processes=len(tree),
                threads=sum(int(_status(pid).get("Threads", "0")) for pid in tree),
                descriptors=sum(_num_descriptors(pid) for pid in tree),
                rss_mib=sum(_kib(_status(pid).get("VmRSS")) for pid in tree) / 1024,
                pss_mib=sum(_kib(_fields(Path(f"/proc/{pid}/smaps_rollup")).get("Pss")) for pid in tree) / 1024,
                weights_mib=weights,
                records_mib=sum(_mib(self._run.rglob("*")).values()) - weights,
                ray_mib=sum(_mib(self._ray.rglob("*")).values()),
            )
        )
        print(" ".join(f"{name}={value:.4g}" for name, value in asdict(self.samples[-1]).items()), flush=True)
        self._since = time.monotonic()


def growth(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Of each figure, per iteration, over the last half."""
    half = samples[len(samples) // 2 :]
    numbers = [sample.iteration for sample in half]
    slopes: dict[str, dict[str, float]] = {}
    for field in fields(Sample)[1:]:
        values = [float(getattr(sample, field.name)) for sample in half]
        line = linregress(numbers, values)
        margin = float(t.ppf(0.975, len(half) - 2) * line.stderr)
        slopes[field.name] = {
            "per_iteration": float(line.slope),
            "low": float(line.slope) - margin,
            "high": float(line.slope) + margin,
            "first": values[0],
            "last": values[-1],
        }
    return slopes


def _tree(root: int) -> Iterable[int]:
    """A process and all below it."""
    parents = {int(path.name): int(_status(int(path.name)).get("PPid", "0")) for path in _processes()}
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below)


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _status(pid: int) -> dict[str, str]:
    return _fields(Path(f"/proc/{pid}/status"))


def _fields(file: Path) -> dict[str, str]:
    """The lines "Name: value" of a file in /proc; none of a process that has ended."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def _kib(value: str | None) -> int:
    return int(value.split()[0]) if value else 0


def _num_descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # names are enough
    except OSError:
        return 0


def _mib(paths: Iterable[Path]) -> dict[tuple[int, int], float]:
    """What files take on disk, each once, however many names it has."""
    sizes: dict[tuple[int, int], float] = {}
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        sizes[status.st_dev, status.st_ino] = status.st_blocks * 512 / 2**20
    return sizes


def play(config: Config, watch: Watch) -> None:
    """The job as a user runs it, watched where it writes its report after each iteration."""
    write_report = self_play.keep_report

    def keep_report(run: RunDirectory) -> None:
        write_report(run)
        if not run.summary_file.exists():
            watch.look()

    self_play.keep_report = keep_report
    self_play.play(config, resume=False, command="python tests/endurance.py")


def main(directory: Path, num_iterations: int) -> None:
    ray_directory = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the names of sockets are
    os.environ |= {"RAY_TMPDIR": str(ray_directory), "RAY_AUTH_MODE": "disabled"}
    directory.mkdir(parents=True, exist_ok=True)
    places = (f"run.directory={json.dumps(str(directory))}", f"run.num_iterations={num_iterations}")
    watch = Watch(directory / "endurance", ray_directory)
    try:
        play(load_config(CONFIG, [*SETTINGS, *places]), watch)
    finally:
        shutil.rmtree(ray_directory, ignore_errors=True)
        write_result(watch.samples, directory / "endurance.json")


def write_result(samples: Sequence[Sample], file: Path) -> None:
    """Also of a run that ended early: a line takes three points to have an interval, and half of them count."""
    slopes = growth(samples) if len(samples) >= 6 else {}
    for name, slope in slopes.items():
        interval = f"[{slope['low']:+.4g}, {slope['high']:+.4g}]"
        print(f"{name:12} {slope['per_iteration']:+.4g} {interval} per iteration, {slope['last']:.5g} in the end")
    result = {"settings": SETTINGS, "growth": slopes, "samples": [asdict(sample) for sample in samples]}
    file.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
