"""What Prometheus would fetch from a node of Ray while something runs."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

SCRAPED_EVERY_S = 2.0
_SAMPLE = re.compile(r"^(?P<name>ray_medcritical_\w+)\{(?P<labels>.*)\} (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}


class Scraped:
    """Every series seen so far, by its metric's name: the tags that are the run's own, and the latest value."""

    def __init__(self) -> None:
        self.latest: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def add(self, text: str) -> None:
        for sample in _SAMPLE.finditer(text):
            labels = dict(_LABEL.findall(sample["labels"]))
            own = {key: value for key, value in labels.items() if key not in _OF_RAY and not key.startswith("otel_")}
            self.latest[sample["name"], frozenset(own.items())] = float(sample["value"])

    def tags(self) -> dict[str, set[tuple[str, ...]]]:
        """Metric -> the sets of tags that its series have, each sorted."""
        tags: dict[str, set[tuple[str, ...]]] = {}
        for name, own in self.latest:
            tags.setdefault(name, set()).add(tuple(sorted(key for key, _ in own)))
        return tags

    def value(self, name: str, **tags: str) -> float | None:
        return self.latest.get((name, frozenset(tags.items())))


@contextmanager
def scraped(port: int) -> Iterator[Scraped]:
    """Fetches the metrics of the node at that port for as long as the block lasts."""
    found, ended = Scraped(), Event()

    def fetch() -> None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                found.add(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return  # the node is busy; the next time will do

    def repeat() -> None:
        while not ended.wait(SCRAPED_EVERY_S):
            fetch()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        fetch()  # what a process told as it ended
