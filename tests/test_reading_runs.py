"""Reading and watching runs in a real Chromium: the test writes, web processes of their own show it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ROOT, Installation

pytestmark = [pytest.mark.browser, pytest.mark.server]
STEPS = 30_000
IN_THE_MIDDLE = """() => [400, 440].flatMap(y => document.elementsFromPoint(300, y))
  .find(one => one.matches("#steps .row"))?.dataset.step"""

FEW_ROWS = "() => document.querySelectorAll('#steps .row').length <= 10 * 200"
SELECT = "one => getSelection().setBaseAndExtent(one.firstChild, 0, one.firstChild, 4)"
SELECTED = "getSelection().toString()"


class Writer:
    """A process with the installation's database that does what it is told, line by line."""

    def __init__(self, installation: Installation) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import django; django.setup(); from tests.writer import main; main()"],
            cwd=ROOT,
            env=installation.environment | {"DJANGO_SETTINGS_MODULE": "agentops.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, line: str) -> str:
        """What it answered to this line."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line.replace("\n", "\\n") + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, f"the writer broke off at {line!r}"
        return answer

    def close(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Writer, str]]:
    """An installation with its web process, and somebody who writes into it."""
    installation = Installation(
        Path(tmp_path_factory.mktemp("reading")), DJANGO_SUPERUSER_PASSWORD="correct horse battery"
    )
    made = installation.command(
        "createsuperuser", "--noinput", "--username", "olga", "--email", "o@example.com"
    )
    assert made.returncode == 0, made.stderr
    writer = Writer(installation)
    yield installation, writer, installation.serve()
    writer.close()
    installation.close()


@pytest.fixture
def page(browser: Browser, served: tuple[Installation, Writer, str]) -> Iterator[Page]:
    """A signed-in page that fails the test on any script error or blocked resource."""
    _, writer, base = served
    context = browser.new_context(base_url=base, viewport={"width": 1280, "height": 800})
    context.add_cookies([{"name": "sessionid", "value": writer.do("session olga"), "url": base}])
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    gone = re.compile(
        r"WebSocket|ERR_CONNECTION_REFUSED|ERR_CONTENT_LENGTH_MISMATCH|htmx:wsError|object Event"
    )
    assert not [problem for problem in problems if not gone.search(problem)]


@pytest.fixture
def write(served: tuple[Installation, Writer, str]) -> Callable[[str], str]:
    return served[1].do


def row(page: Page, step: int) -> Any:
    return page.locator(f"#row-{step}")


def live(page: Page) -> None:
    expect(page.locator("#live")).to_have_attribute("data-state", "live")


def test_a_run_of_30000_steps_is_scrolled_end_to_end(page: Page, write: Callable[[str], str]) -> None:
    page.goto(write(f"long {STEPS} succeeded"))
    expect(row(page, 1)).to_be_visible()
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height > STEPS * 29, "every step has its room before it is read"
    for share in (0.1, 0.37, 0.62, 0.9, 1):
        page.evaluate("share => window.scrollTo(0, share * document.documentElement.scrollHeight)", share)
        seen = int(page.wait_for_function(IN_THE_MIDDLE).json_value())
        assert abs(seen / STEPS - share) < 0.02
        page.wait_for_function(FEW_ROWS)  # what is far away is put away
    expect(row(page, STEPS)).to_be_visible(timeout=20_000)
    page.evaluate("window.scrollTo(0, 0)")
    expect(row(page, 1)).to_be_visible(timeout=20_000)
    assert abs(page.evaluate("document.documentElement.scrollHeight") - height) < height * 0.01


def test_a_long_run_is_read_with_the_keyboard(page: Page, write: Callable[[str], str]) -> None:
    address = write("long 1000 succeeded")
    page.goto(f"{address}?step=199")
    expect(row(page, 199)).to_be_in_viewport()
    for step in (200, 201, 202):
        page.keyboard.press("j")
        expect(row(page, step)).to_have_attribute("aria-current", "true")
        expect(page.locator("#panel")).to_have_attribute("data-step", str(step))
    assert page.url.endswith("?step=202")
    page.keyboard.press("k")
    expect(row(page, 201)).to_be_focused()

    page.keyboard.press("x")  # an error three sections away
    expect(row(page, 300)).to_be_in_viewport()
    expect(page.locator("#panel")).to_contain_text("No answer within 300 s.")
    page.keyboard.press("p")
    expect(page.locator("#jump-said")).to_have_text("This run has no step that asked a person.")

    page.keyboard.press("h")
    expect(row(page, 300)).to_be_hidden()
    expect(row(page, 298)).to_be_focused()
    page.keyboard.press("l")
    expect(row(page, 300)).to_be_visible()

    page.keyboard.press("/")
    page.keyboard.type("look 777")
    page.keyboard.press("Enter")
    expect(page.locator("#found mark")).to_have_count(1)
    page.locator("#found a[data-hit]").click()
    expect(row(page, 777)).to_be_in_viewport()
    expect(page.locator("#panel")).to_have_attribute("data-step", "777")


def test_a_live_run_is_followed_until_the_reader_scrolls_away(
    page: Page, write: Callable[[str], str]
) -> None:
    page.goto(write("long 120 running"))
    live(page)
    write("attempt")
    expect(row(page, 121)).to_be_in_viewport()
    for words in ("First I look", "First I look at the pool.\n\nThen"):
        write(f"draft {words}")
        expect(page.locator("#reasoning")).to_contain_text(words.split("\n")[-1])
    page.locator("#reasoning p.caret").evaluate(SELECT)
    for words in ("Then I", "Then I ask."):
        write(f"draft First I look at the pool.\n\n{words}")
        expect(page.locator("#reasoning p.caret")).to_have_text(words)
        assert page.evaluate(SELECTED) == "Then", "what is selected stays, while more is written"
    expect(page.locator("#panel")).to_have_attribute("data-step", "121")

    # What the reader did to the page survives what arrives.
    page.locator("#inside-1").evaluate("one => one.previousElementSibling.scrollIntoView()")
    page.locator("#turn-1 > .fold-turn").click()
    page.mouse.move(400, 400)
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, -50)
    page.wait_for_function("before => scrollY === before - 50", arg=before)  # it scrolls a moment later
    page.locator("#find").fill("half a word")
    top = page.evaluate("scrollY")
    write("turn")
    expect(page.locator("#to-end")).to_contain_text("new step")
    assert page.evaluate("scrollY") == top, "nothing jumps under the reader"
    expect(page.locator("#inside-1")).to_be_hidden()
    expect(page.locator("#find")).to_have_value("half a word")

    page.locator("#to-end").click()
    last = int(write("turn"))
    expect(row(page, last)).to_be_in_viewport()
    expect(page.locator("#to-end")).to_be_hidden()
    seqs = [int(text) for text in page.locator("#steps .seq").all_text_contents()]
    assert seqs == list(range(1, last + 1))


def test_numbers_about_many_runs_are_read_again(page: Page, write: Callable[[str], str]) -> None:
    write("long 60 failed")
    page.clock.install()
    page.goto("/errors/")
    live(page)
    group = page.locator(".error-groups > li").filter(has_text="No answer within")
    count = int(group.locator(".n b").inner_text().replace(",", ""))
    group.locator("summary").click()
    write("long 60 failed")
    page.clock.fast_forward(31_000)
    expect(group.locator(".n b")).to_have_text(f"{count + 1:,}")
    expect(group.locator("details")).to_have_attribute("open", "")


def test_nothing_is_missing_after_the_server_was_killed(
    browser: Browser, page: Page, served: tuple[Installation, Writer, str], write: Callable[[str], str]
) -> None:
    installation, _, base = served
    page.goto(write("long 150 running"))
    live(page)
    page.evaluate("window.sameDocument = true")
    assert installation.web
    os.kill(installation.web.pid, signal.SIGKILL)
    installation.web.wait()
    expect(page.locator("#live")).to_have_attribute("data-state", "reconnecting")
    expect(page.locator("#live b")).to_have_text("Reconnecting")
    for _ in range(40):  # more than a section, while nobody could tell
        last = int(write("turn"))
    port = urlsplit(base).port
    assert port
    installation.serve(port)
    live(page)
    expect(row(page, last)).to_be_visible()
    write("attempt")
    expect(row(page, last + 1)).to_be_visible()
    assert page.evaluate("window.sameDocument") is True
    for step in range(1, last + 1, 90):
        page.evaluate("step => window.scrollTo(0, step * 30)", step)
        expect(row(page, step)).to_be_visible()
    assert page.locator("#steps .row").count() == last + 1
