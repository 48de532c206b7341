"""Plays a small run on a disk that is full, again and again, and prints what each attempt came to as JSON lines:

unshare -rm python tests/full_disk.py DIR disk    # on a tmpfs of its own, which needs a user namespace
python tests/full_disk.py DIR limit               # files may be no longer than so many bytes (RLIMIT_FSIZE)

After each failure there is a little more room.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fakes import SmallRun, small_config

from jobs.self_play import play_to_the_end
from medcritical_ray.errors import MedCriticalError
from medcritical_ray.run.policies import PolicyStore
from medcritical_ray.run.verification import verify_run

STEP_BYTES = {"disk": 72 * 1024, "limit": 1000}


def main(root: Path, kind: str) -> None:
    os.fsync = lambda descriptor: None
    run = SmallRun(root, small_config())
    give_room = mounted(run.path) if kind == "disk" else limit
    for attempt in range(1, 1000):
        give_room(attempt * STEP_BYTES[kind])
        failure = play(run)
        give_room(2**26)
        print(json.dumps({"failure": failure, **found_in(run)}), flush=True)
        if failure is None:
            return


def play(run: SmallRun) -> str | None:
    """What went wrong, if anything: the error's message, or its type if it is none of the project's own."""
    try:
        game = run.open()
        with game.run:
            play_to_the_end(game)
    except MedCriticalError as error:
        return str(error)
    except OSError as error:
        return repr(error)
    return None


def found_in(run: SmallRun) -> dict[str, object]:
    """What is wrong with the run as it was left, and its policies, each of which must be whole."""
    if not (run.path / "run.json").exists():
        return {"faults": [], "versions": []}
    store = PolicyStore(run.path / "policies")
    for version in store.versions():
        store.verify(version)
    found = verify_run(run.open_to_read())
    return {"faults": [str(fault) for fault in found.faults], "versions": store.versions()}


def mounted(path: Path) -> Callable[[int], None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=True)
    return lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(path)], check=True) and None


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
