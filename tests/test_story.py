"""The whole story in a real Chromium, with web and worker as separate processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import Installation, eventually, wait_for_line

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.anywhere]
ALERT = "PostgreSQL connection pool exhausted"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Installation, str]]:
    """Web and worker, paced so that a person could follow."""
    installation = Installation(
        tmp_path, AGENTOPS_PACE="0.1", DJANGO_SUPERUSER_PASSWORD="correct horse battery"
    )
    made = installation.command(
        "createsuperuser", "--noinput", "--username", "olga", "--email", "o@example.com"
    )
    assert made.returncode == 0, made.stderr
    worker = installation.start("worker")
    wait_for_line(worker, "drives up to")
    yield installation, installation.serve()
    installation.close()


@pytest.fixture
def page(browser: Browser, running: tuple[Installation, str]) -> Iterator[Page]:
    """A signed-in page that fails the test on any script error or blocked resource."""
    installation, base = running
    context = browser.new_context(base_url=base)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    link = installation.command("signinlink", "olga", "--base-url", base).stdout.strip()
    page.goto(link)
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    yield page
    context.close()
    assert not problems, problems


def start_run(page: Page) -> None:
    page.get_by_role("link", name="Start run").first.click()
    page.get_by_label("Question").fill(ALERT)
    page.get_by_role("button", name="Start run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(ALERT))
    page.evaluate("window.sameDocument = true")


def rows(page: Page) -> Any:
    return page.locator("#steps a.row")


def test_an_alert_is_watched_approved_and_paid_for(page: Page, running: tuple[Installation, str]) -> None:
    installation, _ = running
    start_run(page)

    # Steps arrive and reasoning streams without a reload.
    expect(rows(page).first).to_be_visible(timeout=15_000)
    expect(page.locator("#reasoning")).not_to_be_empty(timeout=15_000)
    seen = eventually(lambda: rows(page).count() >= 3 and rows(page).count())
    eventually(lambda: rows(page).count() > seen)

    # The remediation waits, and names what it would do in our words.
    approve = page.get_by_role("button", name=re.compile("^Approve"))
    expect(approve).to_be_visible(timeout=60_000)
    expect(page.locator("#run-head .status")).to_have_text(re.compile("Waiting"))
    expect(page.get_by_role("link", name=re.compile("Approvals"))).to_contain_text("1")
    assert installation.rows("SELECT count(*) FROM tools_worldaction") == [(0,)]

    # Decide in the queue.
    with page.context.expect_page() as opened:
        page.evaluate("open('/approvals/')")
    queue = opened.value
    expect(queue.locator(".card h2")).to_contain_text("api")
    queue.get_by_role("button", name=re.compile("^Approve")).click()
    eventually(lambda: installation.rows("SELECT count(*) FROM tools_worldaction") == [(1,)])
    queue.close()

    # It executes, the agent looks again, and the answer appears; still the same document.
    expect(page.locator("#run-head .status")).to_have_text(re.compile("Succeeded"), timeout=60_000)
    expect(page.locator("#verdict .answer")).not_to_be_empty()
    assert page.evaluate("window.sameDocument") is True
    expect(page.locator("#run-head .figures")).to_contain_text("$0.")
    names = rows(page).locator("b").all_text_contents()
    act = next(n for n, name in enumerate(names) if name in {"revert_deployment", "restart_connection_pool"})
    assert "get_metrics" in names[act:], names
    seqs = [int(text) for text in rows(page).locator(".seq").all_text_contents()]
    assert sorted(seqs) == list(range(1, len(seqs) + 1))

    # A plain reload shows the same, and so does the list.
    shown = rows(page).count()
    page.reload()
    expect(rows(page)).to_have_count(shown)
    page.get_by_role("link", name="Runs", exact=True).first.click()
    expect(page.locator("tr.run")).to_contain_text("Succeeded")
    page.get_by_role("link", name="Costs").click()
    expect(page.get_by_role("main")).to_contain_text("claude-sonnet-5-5")
    expect(page.locator(".headline .simulated")).to_be_visible()


def test_a_rejection_reaches_the_agent_and_becomes_a_ticket(
    page: Page, running: tuple[Installation, str]
) -> None:
    installation, _ = running
    start_run(page)
    reject = page.get_by_role("button", name=re.compile("^Reject"))
    expect(reject).to_be_visible(timeout=60_000)
    page.get_by_label(re.compile("Reason")).first.fill("Not during the <b>sale</b>.")
    reject.click()
    expect(page.locator("#run-head .status")).to_have_text(re.compile("Succeeded"), timeout=60_000)
    assert installation.rows("SELECT count(*) FROM tools_worldaction") == [(0,)]
    page.get_by_role("link", name="Tickets").click()
    expect(page.get_by_role("main")).to_contain_text("INC-")
    assert page.locator("main b", has_text="sale").count() == 0, "text of people and models is never markup"
