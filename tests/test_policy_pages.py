"""The pages of rules: somebody writes a rule, sees what it would have changed, enables it, and calls pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from runs import actions
from runs.models import Approval, PolicyRule, Step, StepStatus
from runs.models.in_force import policy_in_force
from tests.conftest import Installation
from tests.factories import a_waiting_call
from tests.test_policy_rules import (
    a_decision,
    a_proposed_call,
    authorize,
    begin,
    in_force,
    wanted,
)


@pytest.fixture
def page(owner: User) -> Client:
    """The browser of who may change rules."""
    client = Client()
    client.force_login(owner)
    return client


def text(response: Any) -> str:
    """The page in one line, without the entities of quotes."""
    return " ".join(response.content.decode().replace("&quot;", '"').replace("&lt;", "<").split())


FORM = {
    "name": "small-scaling",
    "kind": "allow",
    "tool": "scale_service",
    "conditions": "replicas <= 6",
    "reason": "Small steps are safe",
    "why": "We approve these every day.",
}


def test_a_rule_goes_from_a_form_over_its_back_test_to_a_call_that_passes(page: Client, owner: User) -> None:
    a_decision(owner, "approve", 6)
    a_decision(owner, "reject", 5, "Not during the sale.")
    sent = page.post(reverse("rule-new"), FORM)
    rule = PolicyRule.objects.get()
    assert sent.status_code == 302 and sent.url.startswith(reverse("rule", args=[rule.pk]))  # type: ignore[attr-defined]
    shown = text(page.get(sent.url))  # type: ignore[attr-defined]
    assert "1 call that people rejected would have run" in shown
    assert "“Not during the sale.”" in shown and "I read why people rejected" in shown
    assert rule.draft is not None
    tested = rule.backtests.get()
    enable = {"draft": rule.draft.pk, "backtest": tested.pk, "why": "The sale is over."}
    refused = page.post(reverse("rule-enable", args=[rule.pk]), enable)
    assert refused.status_code == 422 and "Say that this is wanted" in text(refused)
    assert not policy_in_force().rules
    assert page.post(reverse("rule-enable", args=[rule.pk]), enable | {"accepts": "on"}).status_code == 302
    lease, step = a_proposed_call()
    assert authorize(lease, step).status == StepStatus.READY
    assert begin(lease, step).status == StepStatus.EXECUTING
    panel = text(page.get(step.run.get_absolute_url() + f"?step={step.seq}"))
    assert "small-scaling" in panel
    assert page.post(reverse("rule-disable", args=[rule.pk]), {"why": ""}).status_code == 422
    assert page.post(reverse("rule-disable", args=[rule.pk]), {"why": "Enough."}).status_code == 302
    assert not policy_in_force().rules
    history = text(page.get(reverse("rule", args=[rule.pk])))
    assert all(word in history for word in ("Drafted", "Enabled", "Switched off", "“Enough.”"))


def test_what_was_wrong_is_said_at_its_field_and_nothing_that_was_written_is_lost(page: Client) -> None:
    sent = page.post(reverse("rule-new"), FORM | {"conditions": "service_name = api", "why": ""})
    shown = text(sent)
    assert sent.status_code == 422 and "2 fields below have to be changed" in shown
    assert 'Texts need quotes: service_name = "api"' in shown.replace("&#x27;", "'")
    assert "Small steps are safe" in shown and not PolicyRule.objects.exists()


def test_who_may_not_change_rules_sees_them_and_no_buttons(operator: User, owner: User) -> None:
    rule = in_force(owner)
    client = Client()
    client.force_login(operator)
    shown = text(client.get(reverse("policy")))
    assert "small-scaling" in shown and "never-scale-to-zero" in shown and "permission “policy”" in shown
    assert "New rule" not in shown
    assert client.post(reverse("rule-new"), FORM | {"name": "another"}).status_code == 403
    for name in ("rule-enable", "rule-disable", "rule-discard", "rule-backtest"):
        assert client.post(reverse(name, args=[rule.pk]), {"why": "x"}).status_code == 403
    assert PolicyRule.objects.count() == 1 and policy_in_force().rules


def test_a_grant_is_prefilled_from_an_approval_and_pins_what_is_no_prose(page: Client, owner: User) -> None:
    lease, step = a_proposed_call()
    authorize(lease, step)
    approval = Approval.objects.get(step=step)
    card = text(page.get(reverse("approval", args=[approval.pk])))
    address = f"{reverse('rule-new')}?kind=grant&approval={approval.pk}"
    assert address.replace("&", "&amp;") in card
    shown = text(page.get(address))
    assert 'replicas = 6 service_name = "api"' in shown and "expected_effect, reason" in shown
    grant = {"kind": "grant", "tool": "scale_service", "conditions": "replicas = 6", "reason": "A drill."}
    sent = page.post(reverse("rule-new"), grant | {"uses": "2", "seconds": "10 min"})
    assert sent.status_code == 302
    rule = PolicyRule.objects.get()
    assert rule.draft is not None
    enable = {"draft": rule.draft.pk, "backtest": rule.backtests.get().pk, "why": "A drill."}
    assert page.post(reverse("rule-enable", args=[rule.pk]), enable).status_code == 302
    other, again = a_proposed_call()
    authorize(other, again)
    begin(other, again)
    shown = text(page.get(reverse("policy")))
    assert "1 of 2 used" in shown and "ends in" in shown
    assert f"run {again.run_id}, step {again.seq}" in text(page.get(reverse("rule", args=[rule.pk])))
    approval.refresh_from_db()
    assert approval.is_open, "who was asked before is not overruled"


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"arguments": '{"replicas": 6}'}, "small-scaling</b> decides"),
        ({"arguments": '{"replicas": 7}'}, "remediation-needs-a-person</b> decides"),
        ({"arguments": '{"replicas": 7}'}, "not so: replicas <= 6"),
        ({"arguments": '{"replicas": 0}'}, "never-scale-to-zero</b> decides"),
        ({"arguments": '{"replicas": 6}', "environment": "moon"}, "known-environments-only</b> decides"),
        ({"arguments": '{"replicas": 6}'}, "reason is required"),
        ({"arguments": "replicas"}, "The arguments are no JSON"),
        ({"arguments": "[]"}, "one JSON object"),
        ({"tool": "no_such_tool"}, "There is no tool"),
    ],
)
def test_a_call_can_be_tried_before_an_agent_makes_it(
    page: Client,
    owner: User,
    sent: dict[str, str],
    says: str,
) -> None:
    in_force(owner)
    call = {"tool": "scale_service", "agent": "incident", "environment": "production", "arguments": ""}
    assert says in text(page.get(reverse("policy"), call | sent))
    assert not Step.objects.exists()


def test_the_card_says_who_decides_and_why_this_person_may_not(operator: User, owner: User) -> None:
    Group.objects.create(name="On-call")
    rule = in_force(owner, name="two-of-on-call", kind="ask", quorum="2", roles=["On-call"])
    lease, step = a_proposed_call()
    authorize(lease, step)
    approval = Approval.objects.get(step=step)
    client = Client()
    client.force_login(operator)
    card = text(client.get(reverse("approval", args=[approval.pk])))
    assert "Decided by two of: On-call, not by whoever started the run" in card
    assert reverse("rule-version", args=[approval.rule_change]) in card
    assert "olga is in none of these groups" in card and "Approve this scaling" not in card
    vote = {"verdict": "approve", "revision": 1, "digest": approval.digest}
    refused = client.post(reverse("decide", args=[approval.pk]), vote)
    assert refused.status_code == 403 and not approval.votes.exists()
    assert "olga is in none of these groups" in text(refused)
    version = client.get(reverse("rule-version", args=[approval.rule_change]))
    assert version.url == f"{reverse('rule', args=[rule.pk])}#version-2"  # type: ignore[attr-defined]
    shown = text(client.get(reverse("policy")))
    assert "It asks for 2, and nobody in On-call may decide" in shown


def test_a_draft_is_compared_with_what_holds(page: Client, owner: User) -> None:
    rule = in_force(owner)
    actions.draft_rule(wanted(conditions="replicas <= 4"), why="Narrower.", by=owner, pk=rule.pk)
    shown = text(page.get(reverse("rule", args=[rule.pk])))
    assert "<span>−</span><span>replicas <= 6</span>" in shown
    assert "<span>+</span><span>replicas <= 4</span>" in shown
    edit = text(page.get(reverse("rule-edit", args=[rule.pk])))
    assert "replicas <= 4</textarea>" in edit
    assert page.get(reverse("rule", args=[rule.pk + 1])).status_code == 404


def test_an_approval_from_before_there_were_rules_has_its_page(page: Client) -> None:
    _, _, approval = a_waiting_call()
    card = text(page.get(reverse("approval", args=[approval.pk])))
    assert "Decided by one person." in card and f"#code-{approval.rule}" in card


SEED = """
from django.contrib.auth.models import Permission, User
olga = User.objects.create_user("olga")
olga.user_permissions.add(*Permission.objects.filter(codename__in=["policy", "decide"]))
from tests.test_policy_rules import a_decision
a_decision(olga, "reject", 5, "Not during the sale.")
"""
CALL = """
from tests.factories import run_calls
from tests.test_policy_rules import a_proposed_call
lease, step = a_proposed_call()
run_calls(lease)
"""


@pytest.mark.browser
@pytest.mark.server
def test_in_a_browser_a_rule_is_written_tested_and_enabled(browser: Any, tmp_path: Path) -> None:
    installation = Installation(tmp_path)

    def shell(code: str) -> None:
        done = installation.command("shell", "-v0", "-c", code)
        assert done.returncode == 0, done.stderr

    try:
        shell(SEED)
        base = installation.serve()
        context = browser.new_context(base_url=base)
        tab = context.new_page()
        problems: list[str] = []
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(installation.command("signinlink", "olga", "--base-url", base).stdout.strip())
        tab.locator("body").press("g")
        tab.locator("body").press("p")
        tab.get_by_role("link", name="New rule").click()
        tab.get_by_label("Name", exact=True).fill("small-scaling")
        assert tab.get_by_label("People needed").is_visible()
        tab.get_by_label("Allow: it runs without asking").check()
        assert not tab.get_by_label("People needed").is_visible(), "nobody is asked by it"
        tab.get_by_label("Tool", exact=True).select_option("scale_service")
        tab.get_by_label("Arguments, one condition per line").fill("replicas <= 6")
        tab.get_by_label("Reason", exact=True).fill("Small steps are safe.")
        tab.get_by_label("Why this change").fill("We approve these every day.")
        tab.get_by_role("button", name="Save as a draft").click()
        tab.get_by_role("heading", name="1 call that people rejected would have run").wait_for()
        assert tab.get_by_text("“Not during the sale.”").is_visible()
        tab.get_by_label("I read why people rejected").check()
        tab.locator("#on-why").fill("The sale is over.")
        tab.get_by_role("button", name="Enable this version").click()
        tab.get_by_text("small-scaling decides from now on.").wait_for()
        shell(CALL)
        ((status,),) = installation.rows(
            "SELECT status FROM runs_step WHERE name = 'scale_service' AND begun_at IS NOT NULL"
        )
        assert status in {"succeeded", "failed"}
        assert len(installation.rows("SELECT id FROM runs_approval")) == 1, "nobody was asked again"
        assert not problems
        context.close()
    finally:
        installation.close()


def test_an_administrator_keeps_the_groups_that_rules_name(
    operator: User, viewer: User, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("group", "On-call", "--add", "olga", "vera")
    assert capsys.readouterr().out.splitlines() == ["olga", "vera (lacks the permission decide)"]
    call_command("group", "On-call", "--allow", "decide")
    assert capsys.readouterr().out.splitlines() == ["olga", "vera"]
    call_command("group", "On-call", "--remove", "olga", "vera")
    assert "Nobody is in On-call." in capsys.readouterr().out
    for wrong, says in ((["--add", "nobody"], "no user nobody"), (["--allow", "add_run"], "no permission")):
        with pytest.raises(CommandError, match=says):
            call_command("group", "Night", *wrong)
    assert Group.objects.count() == 1
