"""Tries the properties of tests/*/test_hostile_*.py on other inputs than the tests do: `python tests/fuzz.py 2000`.

Prints how many inputs each property was tried on, and what failed, with the smallest input that does. Ends with 1 if
anything did.
"""

import importlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, is_hypothesis_test, settings

TESTS = Path(__file__).parent


def main(num_examples: int, *names: str) -> int:
    settings.register_profile(
        "fuzz", max_examples=num_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    settings.load_profile("fuzz")
    num_tried = num_failed = 0
    for module in modules():
        for name, test in vars(module).items():
            if is_hypothesis_test(test) and (not names or any(each in name for each in names)):
                tried, failed, seconds = try_out(test)
                print(f"{tried:7,} inputs {seconds:6.1f} s  {'FAILED' if failed else 'held'}  {name}", flush=True)
                num_tried, num_failed = num_tried + tried, num_failed + failed
    print(f"{num_tried:7,} inputs, {num_failed} properties failed")
    return int(num_failed > 0)


def modules() -> Iterator[ModuleType]:
    for directory in ("", "unit", "integration"):
        sys.path.insert(0, str(TESTS / directory))
    for file in sorted(TESTS.glob("*/test_hostile_*.py")):
        yield importlib.import_module(file.stem)


def try_out(test: Any) -> tuple[int, bool, float]:
    """How many inputs a property was tried on, whether it failed on any, and the seconds that it took."""
    tried: list[None] = []
    test.hypothesis.inner_test = counted(test.hypothesis.inner_test, tried)
    began = time.monotonic()
    try:
        test()
    except Exception:  # noqa: BLE001  # whatever fails is what is looked for
        traceback.print_exc()
        return len(tried), True, time.monotonic() - began
    return len(tried), False, time.monotonic() - began


def counted(inner: Callable[..., None], tried: list[None]) -> Callable[..., None]:
    @wraps(inner)
    def tried_out(*arguments: Any, **named: Any) -> None:
        inner(*arguments, **named)
        tried.append(None)

    return tried_out


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
