"""Writes runs for tests of pages, in a process of its own: one command a line, one line of answer.

Django is set up by whoever starts it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from django.contrib.auth.models import User
from django.test import Client

from runs import actions
from runs.models import Run, RunStatus, Step
from tests.factories import a_charge, a_lease, a_run, a_turn, a_waiting_call, an_attempt
from tests.long_runs import a_long_run
from tools.models import Severity, Ticket


class Writing:
    """The run that is written to: the newest one."""

    run: Run
    lease: actions.Lease
    step: Step | None = None

    def session(self, name: str) -> str:
        """The key of a session of this user."""
        client = Client()
        client.force_login(User.objects.get(username=name))
        return client.cookies["sessionid"].value

    def long(self, words: str) -> str:
        """A run of so many steps in this status; its address."""
        steps, status = words.split()
        self.run = a_long_run(int(steps), status=RunStatus(status))
        if status == RunStatus.RUNNING:
            self.lease, self.step = a_lease(self.run), None
        return self.run.get_absolute_url()

    def pages(self, name: str) -> str:
        """Something for every page to show; the addresses of all pages."""
        finished, waiting = a_long_run(60), a_run("A question")
        _, _, approval = a_waiting_call(waiting)
        Ticket.objects.create(
            reference="INC-1", title="Pool", severity=Severity.SEV2, summary="Full.", dedup_key="k",
            request_id=str(finished.request_id), services=["api"], evidence_ids=["ev_02"],
        )  # fmt: skip
        budget = actions.set_budget(
            actor=name, scope="installation", period="week", limits={"cost_usd": "5", "tool_calls": "50"}
        )
        page = finished.get_absolute_url()
        addresses = [
            "/", "/runs/new", page, f"{page}?step=50&find=look", f"{page}?view=conversation",
            waiting.get_absolute_url(), a_long_run(230).get_absolute_url(), "/approvals/",
            f"/approvals/{approval.pk}/", "/approvals/history/", "/approvals/reviewing/",
            "/approvals/unknown/", "/approvals/decided/", "/notifications/", "/notifications/new",
            "/notifications/deliveries/", "/agents/", "/agents/incident/", "/tools/", "/tools/get_metrics/",
            "/errors/", f"/runs/compare/?left={finished.pk}&right={waiting.pk}", "/runs/compare/",
            f"/budgets/{budget.pk}/", "/costs/", "/costs/export/",
            f"/costs/statement/{finished.created_at:%Y-%m}/", "/costs/summaries/", "/costs/advice/incident/",
            "/costs/prices/", "/costs/prices/new", "/budgets/", "/tickets/", "/tickets/INC-1/", "/workers/",
            "/sign-in/",
        ]  # fmt: skip
        return " ".join(addresses)

    def attempt(self, _: str) -> str:
        """A turn that streams."""
        self.step = an_attempt(self.lease)
        return str(self.step.seq)

    def draft(self, words: str) -> str:
        """What it has written so far."""
        assert self.step
        actions.save_draft(self.lease, self.step, words.replace("\\n", "\n"))
        return "saved"

    def turn(self, _: str) -> str:
        """A complete turn with two calls; its last step."""
        if self.step is not None:
            actions.fail_attempt(
                self.lease, self.step, action="retry", kind="overloaded", sentence="Busy.", charge=a_charge()
            )
            self.step = None
        steps = a_turn(self.lease, ("get_metrics", "read", {}), ("search_logs", "read", {}), text="Looking.")
        return str(steps[-1].seq)


def main() -> None:
    """Until there is nothing more to read."""
    writing = Writing()
    for line in sys.stdin:
        name, _, words = line.rstrip("\n").partition(" ")
        act: Callable[[str], str] = getattr(writing, name)
        print(act(words), flush=True)
