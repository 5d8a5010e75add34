"""Finding a step from the keyboard, in a real Chromium, with web and worker as separate processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import Installation, eventually, wait_for_line

pytestmark = [pytest.mark.browser, pytest.mark.server]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Installation, str]]:
    """Web and worker; nobody waits for show."""
    installation = Installation(tmp_path, DJANGO_SUPERUSER_PASSWORD="correct horse battery")
    made = installation.command(
        "createsuperuser", "--noinput", "--username", "olga", "--email", "o@example.com"
    )
    assert made.returncode == 0, made.stderr
    wait_for_line(installation.start("worker"), "drives up to")
    yield installation, installation.serve()
    installation.close()


@pytest.fixture
def page(browser: Browser, running: tuple[Installation, str]) -> Iterator[Page]:
    """A signed-in page that fails the test on any script error."""
    installation, base = running
    context = browser.new_context(base_url=base)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(installation.command("signinlink", "olga", "--base-url", base).stdout.strip())
    yield page
    context.close()
    assert not problems, problems


def test_a_step_is_found_from_the_keyboard(page: Page, running: tuple[Installation, str]) -> None:
    installation, _ = running
    page.goto("/runs/new")
    page.get_by_label("Question").fill("PostgreSQL connection pool exhausted")
    page.get_by_role("button", name="Start run").click()
    # The worker indexes what the run wrote a moment later.
    eventually(lambda: installation.rows("SELECT 1 FROM runs_run WHERE status = 'waiting'"))
    last = installation.rows("SELECT max(id) FROM runs_event")[0][0]
    eventually(lambda: installation.rows("SELECT 1 FROM runs_searchstate WHERE done >= ?", last))

    page.goto("/?q=")
    page.keyboard.press("/")
    search = page.get_by_role("combobox", name="Search runs")
    expect(search).to_be_focused()
    page.keyboard.type("pool tool:sea")
    option = page.get_by_role("option", name="search_logs")
    expect(option).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(search).to_have_value("pool tool:search_logs ")
    search.press("Enter")

    expect(page).to_have_url(re.compile(r"\?q=pool"))
    hit = page.locator(".hits a").first
    expect(page.locator(".hits mark").first).to_have_text(re.compile("pool", re.IGNORECASE))
    step = re.search(r"step=(\d+)", hit.get_attribute("href") or "")
    assert step is not None
    hit.press("Enter")
    expect(page.locator("#panel")).to_have_attribute("data-step", step[1])

    page.goto("/?q=stauts:failed")
    expect(page.get_by_role("alert")).to_contain_text("Did you mean status:?")
