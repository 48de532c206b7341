"""The report as a person sees it: in Chromium, on a desk and on a phone, in light and in dark."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fakes import SmallRun, small_config
from playwright.sync_api import Browser, Page, sync_playwright

from jobs.self_play import play_to_the_end
from medcritical_ray.questions import write_questions
from medcritical_ray.records import Trajectory
from medcritical_ray.report import write_report
from medcritical_ray.run.directory import RunDirectory
from medcritical_ray.run.tables import part_path, read_part, write_part

pytestmark = pytest.mark.integration

PATIENCE_MS = 120_000
HOSTILE = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 2'> &amp;"
LONG = "a" * 300
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@dataclass
class View:
    """An open report, and what it did that a report must not do."""

    page: Page
    examples: list[dict]
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def shown(self) -> list[str]:
        return self.page.locator("article").all_inner_texts()

    def found(self) -> str:
        return self.page.locator("#found").inner_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished run, one of whose questions and attempts would like to be markup, and one knows no blanks."""
    game = SmallRun(tmp_path_factory.mktemp("report"), small_config()).open()
    with game.run as run:
        play_to_the_end(game)
    hostile, long, *others = read_part(part_path(run.iteration(1) / "attempts", 0), Trajectory)
    traces = [(hostile, HOSTILE), (long, LONG)]
    attempts = [replace(attempt, trace=trace, correct=False) for attempt, trace in traces] + others
    write_part(run.iteration(1) / "attempts", 0, attempts, Trajectory)
    for split, questions in (("train", game.train), ("test", game.test)):
        rows = [replace(question, labels={HOSTILE: LONG}) for question in questions]
        marked = [replace(q, stem=HOSTILE) if q.id == hostile.question_id else q for q in rows]
        write_questions(run.path / "data" / f"{split}.parquet", marked)
    write_report(RunDirectory(run.path), run.report_file)
    return run.report_file


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    assert found, "no Chromium here: tools/chromium.sh brings it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0], timeout=PATIENCE_MS)
        yield browser
        browser.close()


def opened(browser: Browser, report: Path, size: dict[str, int] = DESK, scheme: str = "light") -> View:
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.set_default_timeout(PATIENCE_MS)
    [data] = re.findall(r'<script type="application/json" id="examples">(.*?)</script>', report.read_text(), re.DOTALL)
    view = View(page, json.loads(data))
    page.on("request", lambda request: view.requests.append(request.url))
    page.on("console", lambda message: view.complaints.append(message.text))
    page.on("pageerror", lambda error: view.complaints.append(str(error)))
    page.on("dialog", lambda dialog: view.complaints.append(dialog.message))
    page.goto(report.as_uri())
    return view


@pytest.fixture
def view(browser: Browser, report: Path) -> Iterator[View]:
    view = opened(browser, report)
    yield view
    view.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_page_fits_its_window_and_can_be_read(
    browser: Browser, report: Path, size: dict[str, int], scheme: str, tmp_path: Path
):
    view = opened(browser, report, size, scheme)
    view.page.locator("summary").click()
    assert view.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    ink, ground = (brightness(view.page, name) for name in ("color", "backgroundColor"))
    assert (ink < ground) == (scheme == "light")
    assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 7  # WCAG 2.2, success criterion 1.4.6
    view.page.screenshot(path=tmp_path / f"{size['width']}-{scheme}.png", full_page=True)
    view.page.close()


def brightness(page: Page, name: str) -> float:
    """The relative luminance of a colour of the page, as WCAG 2.2 has it."""
    colour = page.evaluate(f"getComputedStyle(document.body).{name}")
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_choosing_an_outcome_and_an_iteration_leaves_those_alone(view: View):
    assert view.found() == f"20 of {len(view.examples)} shown"
    view.page.select_option("select[name=outcome]", "repaired")
    repaired = [example for example in view.examples if example["outcome"] == "repaired"]
    assert view.found() == f"{min(20, len(repaired))} of {len(repaired)} shown"
    assert all("· repaired" in text for text in view.shown())
    view.page.select_option("select[name=iteration]", "2")
    in_second = [example for example in repaired if example["iteration"] == 2]
    assert 0 < len(in_second) < len(repaired)
    assert view.found() == f"{min(20, len(in_second))} of {len(in_second)} shown"
    assert all(text.startswith("iteration 2 ") for text in view.shown())


def test_searching_leaves_what_has_every_word(view: View):
    question = view.examples[0]["question_id"]
    view.page.fill("input[name=search]", f"{question.upper()} step")
    wanted = [example for example in view.examples if example["question_id"] == question]
    assert 0 < len(wanted) < len(view.examples)
    assert view.found() == f"{len(wanted)} of {len(wanted)} shown"
    assert all(question in text for text in view.shown())
    view.page.fill("input[name=search]", f"{question} nowhere-to-be-found")
    assert (view.found(), view.shown()) == ("0 of 0 shown", [])


def test_more_are_shown_until_there_are_none(view: View):
    more = view.page.locator("#more")
    while more.is_visible():
        before = len(view.shown())
        more.click()
        assert len(view.shown()) > before
    assert len(view.shown()) == len(view.examples)


def test_the_first_step_that_differs_is_marked_on_both_sides(view: View):
    view.page.select_option("select[name=outcome]", "repaired")
    repaired = [example for example in view.examples if example["outcome"] == "repaired"]
    for number, example in enumerate(repaired[:5]):
        marked = view.page.locator("article").nth(number).locator(".line.differs").all_inner_texts()
        at, there = example["differ_at"]
        assert marked == [example["attempt"].split("\n")[at], example["correction"].split("\n")[there]]
        assert marked[0] != marked[1]


def test_what_would_like_to_be_markup_is_text_and_does_nothing(view: View):
    view.page.fill("input[name=search]", "window.ran onerror")
    assert any(HOSTILE in text for text in view.shown())
    assert view.page.locator("article p", has_text=HOSTILE).count() > 0
    assert view.page.locator("article .line", has_text=HOSTILE).count() > 0
    assert view.page.evaluate("window.ran") is None
    assert view.page.locator("img").count() == 0
    assert view.complaints == []


def test_nothing_is_loaded_but_the_page_itself(view: View, report: Path):
    view.page.locator("#more").click()
    assert view.requests == [report.as_uri()]
