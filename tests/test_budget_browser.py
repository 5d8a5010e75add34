"""A person sets a budget, sees a run pause at it, raises it and sees the run finish, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import Installation, wait_for_line

pytestmark = [pytest.mark.browser, pytest.mark.server]


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A signed-in page of an installation with a worker; any script error or blocked resource fails."""
    installation = Installation(tmp_path, DJANGO_SUPERUSER_PASSWORD="correct horse battery")
    made = installation.command("createsuperuser", "--noinput", "--username", "olga", "--email", "o@a.org")
    assert made.returncode == 0, made.stderr
    wait_for_line(installation.start("worker"), "drives up to")
    base = installation.serve()
    context = browser.new_context(base_url=base)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(installation.command("signinlink", "olga", "--base-url", base).stdout.strip())
    yield page
    context.close()
    installation.close()
    assert not problems, problems


def test_a_run_pauses_at_its_budget_and_finishes_when_a_person_raises_it(page: Page) -> None:
    page.goto("/budgets/")
    page.get_by_label("For").select_option("tag")
    page.get_by_label("Its name").fill("shop")
    page.get_by_label("Period").select_option("week")
    page.get_by_label("Cost in USD").fill("0.02")
    page.get_by_label("At the limit").select_option("pause")
    page.get_by_role("button", name="Set budget").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("tag shop per week")
    budget = page.url

    page.goto("/runs/new")
    page.get_by_label("Question").fill("Is the shop healthy?")
    page.get_by_label("Tags").fill("shop, demo")
    page.get_by_role("button", name="Start run").click()
    status = page.locator("#run-head .status")
    expect(status).to_have_text(re.compile("Paused"), timeout=30_000)
    run = page.url
    page.get_by_role("link", name="Open the budget").click()
    expect(page).to_have_url(budget)
    held = page.get_by_role("region", name="Held back in this period").get_by_role("row")
    expect(held.nth(1)).to_contain_text("waits")
    expect(page.get_by_role("region", name="Thresholds reached")).to_contain_text(
        "whose next call did not fit"
    )
    expect(page.get_by_role("img", name=re.compile("Cost left of tag shop per week"))).to_be_visible()
    page.get_by_text("The same as a table").click()
    expect(page.locator(".burn-down table")).to_contain_text("$0.02")

    page.get_by_label("Cost in USD").fill("5")
    page.get_by_role("button", name="Save").click()
    expect(held.nth(1)).to_contain_text("was paused")
    expect(page.get_by_role("region", name="Who changed what")).to_contain_text("$5, pause")
    page.goto(run)
    expect(status).to_have_text(re.compile("Succeeded"), timeout=30_000)
    page.goto(budget)
    expect(page.locator("#budget .meter")).to_contain_text(re.compile(r"\$0\.\d{4} of \$5\.0000"))
