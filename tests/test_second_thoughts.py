"""People change a call, and take an approval back, in a real browser with a real worker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import Installation, wait_for_line

pytestmark = [pytest.mark.browser, pytest.mark.server]
# Two runs of which each asks to end the idle sessions of the api, which cannot be undone.
SEED = """
import json
from django.contrib.auth.models import Permission, User
from runs import actions
from runs.models import Approval
from tests.factories import *
from tests.toolbox import expected

olga = User.objects.create_user("olga")
olga.user_permissions.add(*Permission.objects.filter(codename__in=["decide", "start"]))
made = []
for question in ("changed", "undone"):
    lease = a_lease(a_run(question))
    arguments = {
        "service_name": "api",
        "mode": "terminate_all_of_service",
        "reason": "The pool is full.",
        "expected_effect": expected("latency_p95", "below", 0.5),
    }
    a_turn(lease, ("restart_connection_pool", "destructive", arguments), text="I want to.")
    run_calls(lease)
    actions.park(lease, until=None, reason="approval", explanation="A person has to decide.")
    made.append(Approval.objects.get(run=lease.run_id).pk)
print(json.dumps(made))
"""
APPROVE = re.compile("^Approve this")


@pytest.fixture
def office(tmp_path: Any, browser: Browser) -> Iterator[tuple[Installation, Page, list[str]]]:
    """Web and worker with two questions, and olga's page."""
    installation = Installation(tmp_path, AGENTOPS_COOLING_OFF_SECONDS="60")
    context = browser.new_context()
    expect.set_options(timeout=20_000)
    try:
        seeded = installation.command("shell", "-v0", "-c", SEED)
        assert seeded.returncode == 0, seeded.stderr
        base = installation.serve()
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(installation.command("signinlink", "olga", "--base-url", base).stdout.strip())
        wait_for_line(installation.start("worker"), "drives up to")
        made = [f"{base}/approvals/{pk}/" for pk in json.loads(seeded.stdout)]
        yield installation, page, made
        assert not problems, problems
    finally:
        context.close()
        installation.close()


def keys_are_believed(page: Page) -> None:
    """Just after a page changed they meant what stood there before."""
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    while page.evaluate("performance.now()") < 450:
        pass


def approve(page: Page) -> None:
    """Approve what is open, with the name of what cannot be undone where that is asked."""
    if page.get_by_label(re.compile("to approve")).count():
        page.get_by_label(re.compile("to approve")).fill("api")
    page.get_by_role("button", name=APPROVE).click()


def test_a_changed_call_runs_as_changed_and_an_undone_one_never(
    office: tuple[Installation, Page, list[str]],
) -> None:
    installation, page, (changed, undone) = office

    # Changed: the next revision is asked about, it runs, and the agent is told.
    page.goto(changed)
    keys_are_believed(page)
    page.keyboard.press("e")
    page.get_by_label(re.compile("^Mode")).select_option("drain_and_recycle")
    page.get_by_label(re.compile("Why you change it")).fill("Nobody is cut off.")
    page.get_by_role("button", name="Check and ask about it").click()
    page.get_by_role("link", name="Open the newest revision").click()
    expect(page.locator(".revised")).to_contain_text("Changed by olga")
    expect(page.locator(".revised")).to_contain_text("terminate_all_of_service")
    second = page.url
    approve(page)
    page.goto(second)
    expect(page.locator("#decide .outcome")).to_contain_text("It ran: Restarted the connection pool of api")
    query = "SELECT result FROM runs_step WHERE name = 'restart_connection_pool' AND status = 'succeeded'"
    ((told,),) = installation.rows(query)
    assert json.loads(told)["changed_by_a_person"]["ran"]["mode"] == "drain_and_recycle"

    # Undone while it cools off: it never runs.
    page.goto(undone)
    approve(page)
    page.goto(undone)
    expect(page.locator("[data-undo]")).to_contain_text("Starts in")
    keys_are_believed(page)
    page.keyboard.press("u")
    expect(page.get_by_text("It does not run; the agent is told why")).to_be_visible()
    expect(page.locator("#decide")).to_contain_text("Taken back by olga")
    assert installation.rows("SELECT count(*) FROM tools_worldaction") == [(1,)]
