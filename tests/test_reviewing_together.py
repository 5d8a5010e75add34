"""Several people in several real browsers decide on the same questions, over the live connection."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.conftest import Installation

pytestmark = [pytest.mark.browser, pytest.mark.server]
SEED = """
import json
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from runs import actions
from runs.models import Approval
from tests.factories import *

def person(name):
    user = User.objects.create_user(name)
    user.user_permissions.add(*Permission.objects.filter(codename__in=["decide", "start"]))
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session.session_key

def turn(question, *names):
    lease = a_lease(a_run(question))
    calls = [("revert_deployment", "destructive", {"deployment_id": name}) for name in names]
    found = []
    for step, name in zip(a_turn(lease, *calls, text="I want to."), names):
        asked = a_question({"deployment_id": name})
        asked.preview["headline"] = f"Revert {name}"
        actions.ask_approval(lease, step.seq, asked)
        found.append(Approval.objects.get(step=step).pk)
    actions.park(lease, until=None, reason="approval", explanation="A person has to decide.")
    return found

print(json.dumps({
    "people": {name: person(name) for name in ("olga", "dana")},
    "keys": turn("keys", "one")[0],
    "race": turn("race", "two")[0],
    "held": turn("held", "three")[0],
    "late": turn("late", "four")[0],
    "stack": turn("Why is checkout slow?", "five", "six", "seven"),
    "quorum": a_waiting_call(a_run("quorum"), quorum=2)[2].pk,
}))
"""
CALLED = re.compile("^Approve this")


class Office:
    """One installation with its questions, and a browser for each of its people."""

    def __init__(self, installation: Installation, base: str, made: dict[str, Any], browser: Browser) -> None:
        self.installation, self.base, self.made, self.browser = installation, base, made, browser
        self.problems: list[str] = []
        self.contexts: list[Any] = []

    def visit(self, name: str, path: str, **options: Any) -> Page:
        """This person looks at this page."""
        context = self.browser.new_context(base_url=self.base, **options)
        self.contexts.append(context)
        key = self.made["people"][name]
        context.add_cookies([{"name": "sessionid", "value": key, "url": self.base}])
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(path)
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
        return page

    def card(self, name: str, which: str, **options: Any) -> Page:
        """This person looks at the card of this question."""
        return self.visit(name, f"/approvals/{self.made[which]}/", **options)

    def state(self, which: str) -> str:
        """What is recorded of this question."""
        query = "SELECT state FROM runs_approval WHERE id = ?"
        return str(self.installation.rows(query, self.made[which])[0][0])

    def deadline_passes(self, which: str) -> None:
        """The time to decide is over; nothing but the row says so."""
        with closing(sqlite3.connect(f"{self.installation.folder}/agentops.sqlite3", timeout=20)) as rows:
            rows.execute("UPDATE runs_approval SET expires_at = created_at WHERE id = ?", [self.made[which]])
            rows.commit()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Office]:
    """The web process and everything that is asked in this file."""
    installation = Installation(tmp_path_factory.mktemp("office"))
    try:
        seeded = installation.command("shell", "-v0", "-c", SEED)
        assert seeded.returncode == 0, seeded.stderr
        yield Office(installation, installation.serve(), json.loads(seeded.stdout), browser)
    finally:
        installation.close()


@pytest.fixture
def office(opened: Office) -> Iterator[Office]:
    """The same, with the browsers of one test."""
    expect.set_options(timeout=15_000)  # machines that test have other things to do
    yield opened
    for context in opened.contexts:
        context.close()
    opened.contexts.clear()
    problems, opened.problems = opened.problems, []
    assert not problems, problems


def quiet(page: Page) -> None:
    """Wait until keys are believed again: just after a change they meant what stood there before."""
    page.wait_for_function("() => performance.now() > 450")


def hold_votes(page: Page) -> Callable[[], None]:
    """Votes of this page stay on their way until the returned function is called."""
    held: list[Route] = []
    page.route("**/decide/", lambda route: held.append(route))

    def release() -> None:
        page.wait_for_timeout(0)
        held.pop().continue_()

    return release


def test_the_keyboard_decides_only_what_is_before_the_reader(office: Office) -> None:
    page = office.card("olga", "keys", viewport={"width": 900, "height": 600})
    button = page.get_by_role("button", name=CALLED)
    quiet(page)

    page.keyboard.press("?")
    help_dialog = page.get_by_role("dialog")
    expect(help_dialog).to_contain_text("take an approval back")
    page.keyboard.press("a")  # means nothing while the keys are explained
    for _ in range(4):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || help.contains(document.activeElement)"
        )
    page.keyboard.press("Escape")
    expect(help_dialog).to_be_hidden()

    expect(button).not_to_be_focused()
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.press("a")  # out of sight below: only goes there
    expect(button).to_be_focused()
    expect(button).to_be_in_viewport(ratio=1)
    page.evaluate("scrollTo(0, 0)")
    expect(button).not_to_be_in_viewport(ratio=1)
    page.keyboard.press("a")  # it has the focus, and cannot be seen
    expect(button).to_be_in_viewport(ratio=1)
    assert office.state("keys") == "pending"

    page.keyboard.press("r")
    page.keyboard.type("area")
    expect(page.get_by_label("Reason, sent to the agent")).to_have_value("area")
    page.keyboard.press("Escape")
    page.get_by_label("too risky now").focus()
    page.keyboard.press("Enter")  # a form answers with its first button; that must not be the yes
    assert office.state("keys") == "pending"

    page.evaluate(
        """for (const action of ["edit", "undo"]) {
             const button = Object.assign(document.createElement("button"), {type: "button"});
             button.append(button.dataset.action = action);
             button.addEventListener("click", () => (window.pressed = `${window.pressed ?? ""} ${action}`));
             document.getElementById("decide").prepend(button);
           }"""
    )
    page.keyboard.press("e")
    page.keyboard.press("e")
    page.keyboard.press("u")
    assert page.evaluate("window.pressed").split()[-2:] == ["edit", "undo"]

    button.focus()
    page.keyboard.press("a")
    if office.state("keys") == "pending":  # the first one may have scrolled it into sight
        page.keyboard.press("a")
    expect(page.get_by_text("Approved: Revert one")).to_be_visible()
    assert office.state("keys") == "approved"


def test_a_key_means_the_question_that_has_the_focus(office: Office) -> None:
    page = office.card("olga", "race")
    link = page.locator("#queue a", has_text="Revert three")
    quiet(page)
    link.focus()
    page.keyboard.press("a")  # opens that one, and presses nothing on the one that was open
    expect(page.locator("#card-title")).to_contain_text("Revert three")
    expect(page.get_by_role("button", name=CALLED)).not_to_be_focused()
    assert (office.state("race"), office.state("held")) == ("pending", "pending")


def test_who_loses_a_race_sees_at_once_who_decided(office: Office) -> None:
    olga, dana = office.card("olga", "race"), office.card("dana", "race")
    olga.get_by_label("Reason, sent to the agent").fill("I was about to write why")
    dana.get_by_role("button", name="Reject").click()
    outcome = olga.locator("#decide .outcome")
    expect(outcome).to_contain_text(re.compile(r"Rejected by dana\s*(just now|\d+ s ago)"))
    expect(olga.get_by_role("button", name=CALLED)).to_have_count(0)
    expect(olga.locator("#decide")).to_contain_text("Your unsent text: I was about to write why")
    expect(olga.locator(f"#ticket-{office.made['race']}")).to_contain_text("Rejected by dana")


def test_a_vote_that_comes_second_is_told_who_was_first_and_when(office: Office) -> None:
    olga, dana = office.card("olga", "held"), office.card("dana", "held")
    release = hold_votes(olga)
    with olga.expect_request("**/decide/"):
        olga.get_by_role("button", name=CALLED).click(no_wait_after=True)
    dana.get_by_role("button", name="Reject").click()
    expect(dana.get_by_text("Rejected: Revert three")).to_be_visible()
    release()
    said = olga.locator(".card-problem")
    expect(said).to_contain_text(re.compile(r"Already rejected by dana at \d\d:\d\d:\d\d UTC"))
    assert office.state("held") == "rejected"


def test_at_the_deadline_buttons_go_without_a_reload_and_the_server_refuses(office: Office) -> None:
    page = office.card("olga", "late")
    release = hold_votes(page)
    with page.expect_request("**/decide/"):
        page.get_by_role("button", name=CALLED).click(no_wait_after=True)
    other = office.visit("dana", f"/approvals/{office.made['stack'][0]}/")
    other.route("**/live/**", lambda route: route.abort())
    other.clock.install()
    other.goto(f"/approvals/{office.made['late']}/")
    expect(other.get_by_role("button", name=CALLED)).to_be_visible()
    other.clock.fast_forward(16 * 60_000)  # by the clock of this page, which nobody tells anything
    expect(other.get_by_role("button", name=CALLED)).to_have_count(0)
    expect(other.get_by_role("button", name="Reject")).to_have_count(0)
    expect(other.get_by_text("The deadline has passed. It does not run")).to_be_visible()
    office.deadline_passes("late")
    release()
    expect(page.locator(".card-problem")).to_contain_text("The deadline has passed")
    assert office.state("late") == "expired"


def test_two_people_in_two_browsers_make_a_quorum(office: Office) -> None:
    olga, dana = office.card("olga", "quorum"), office.card("dana", "quorum")
    expect(olga.locator("#decide .quorum")).to_contain_text("Still needed: 2 yeses of dana or olga.")
    olga.get_by_role("button", name=CALLED).click()
    expect(olga.get_by_text("waits for another person")).to_be_visible()
    expect(dana.locator("#decide .quorum")).to_contain_text("1 of 2 votes")
    expect(dana.locator("#decide .quorum")).to_contain_text("Still needed: 1 yes of dana.")
    olga.goto(f"/approvals/{office.made['quorum']}/")
    expect(olga.locator("#decide .quorum")).to_contain_text("You have voted.")
    expect(olga.get_by_role("button", name=CALLED)).to_have_count(0)
    expect(olga.locator("#live")).to_have_attribute("data-state", "live")
    waiting = int(re.findall(r"\((\d+)\)", olga.title())[0])
    dana.get_by_role("button", name=CALLED).click()
    expect(olga.locator("#decide .outcome")).to_contain_text("Approved by dana")
    expect(olga).to_have_title(re.compile(rf"^\({waiting - 1}\) "))
    assert office.state("quorum") == "approved"


def test_the_calls_of_one_turn_stand_together_and_stay_in_place(office: Office) -> None:
    olga = office.visit("olga", f"/approvals/{office.made['stack'][0]}/")
    stack = olga.locator(".turn-stack")
    expect(stack).to_contain_text("3 calls of one turn")
    expect(stack).to_contain_text("Why is checkout slow?")
    titles = stack.locator(".ticket h3").all_text_contents()
    assert [title.split()[1] for title in titles] == ["five", "six", "seven"]
    expect(olga.locator("#card")).to_contain_text("Asked in the same turn")
    dana = office.visit("dana", f"/approvals/{office.made['stack'][1]}/")
    dana.get_by_role("button", name="Reject").click()
    expect(stack.locator(".ticket").nth(1)).to_contain_text("Rejected by dana")
    expect(olga.locator(".siblings li").first).to_contain_text("by dana")
    assert stack.locator(".ticket h3").all_text_contents() == titles
    expect(olga.get_by_role("button", name=CALLED)).to_be_visible()  # this one is a decision of its own


def test_nothing_is_wider_than_a_phone(office: Office) -> None:
    phone = {"width": 390, "height": 844}
    page = office.visit("olga", f"/approvals/{office.made['stack'][0]}/", viewport=phone)
    address = page.locator("[data-trace]").first.get_attribute("href")
    assert address
    for path in ("/approvals/", address):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    reason = page.locator("textarea[name=say]").first
    assert reason.evaluate("node => node.scrollHeight <= node.clientHeight")
    assert page.get_by_role("link", name="JSON").evaluate("node => node.offsetWidth") < 120
    ask = page.locator(".ask").first
    ask.locator("summary").first.click()
    expect(ask.get_by_role("heading", name="Why you are asked")).to_be_visible()
