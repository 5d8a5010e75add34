"""manage.py runagent"""

from __future__ import annotations

import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils import timezone
from rich.console import Console
from rich.prompt import Prompt

from runs import actions, agents
from runs.engine.drive import drive
from runs.engine.model import disconnect
from runs.engine.worker import Heart, worker_name
from runs.hints import Listener
from runs.management.startup import check_model, operating_system_user, prepare_database
from runs.management.trace import Trace
from runs.models import Approval, ApprovalState, Run, RunStatus
from runs.reading.export import log_text
from runs.reading.words import line, plain
from tools.backends import estate

EXIT_STATUS = {
    RunStatus.SUCCEEDED: 0,
    RunStatus.STOPPED: 3,
    RunStatus.WAITING: 4,
    RunStatus.PAUSED: 4,
    RunStatus.FAILED: 1,
    RunStatus.CANCELLED: 1,
}


class Command(BaseCommand):
    help = (
        "Start a run and drive it here, with a live trace. Exit status: 0 succeeded, 3 stopped by a limit, "
        "4 waiting for a person, 1 failed, 2 wrong usage."
    )

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The question, and how decisions and output are handled."""
        parser.add_argument("question", metavar="QUESTION")
        parser.add_argument("--agent", default=next(iter(agents.installed())))
        known = ", ".join(item.id for item in estate.scenarios())
        parser.add_argument("--scenario", default="", metavar="NAME", help=f"simulated incident: {known}")
        parser.add_argument(
            "--tag", action="append", default=[], dest="tags", metavar="NAME", help="may be given repeatedly"
        )
        decision = parser.add_mutually_exclusive_group()
        decision.add_argument("--yes", action="store_true", help="approve what needs approval, as you")
        decision.add_argument("--no", action="store_true", help="reject what needs approval, as you")
        parser.add_argument("--detach", action="store_true", help="only queue it, for a worker")
        parser.add_argument("--json", action="store_true", help="print only the run's log, as JSON")

    def handle(self, *args: Any, question: str, agent: str, scenario: str, **options: Any) -> None:
        """Start, drive, decide, report."""
        prepare_database()
        check_model()
        user = operating_system_user()
        try:
            run = actions.start_run(
                question=question,
                agent=agent,
                user=user,
                started_by=user.get_username(),
                scenario=scenario,
                tags=options["tags"],
            )
        except actions.ActionError as error:
            raise CommandError(str(error), returncode=2) from error
        if options["detach"]:
            self._report(run, options["json"], f"Queued as {run.request_id}; a worker will drive it.")
            return
        console = Console(stderr=options["json"], quiet=options["json"], highlight=False)
        try:
            for part in _chain(run):
                run = part
                _Foreground(run, user, console, yes=options["yes"], no=options["no"]).work()
        except KeyboardInterrupt:
            console.print("\nLeft to the workers; nothing is lost.", style="yellow")
        finally:
            disconnect()
        run.refresh_from_db()
        self._report(run, options["json"], _closing_words(run))
        sys.exit(EXIT_STATUS.get(RunStatus(run.status), 4))

    def _report(self, run: Run, as_json: bool, words: str) -> None:
        if as_json:
            self.stdout.write(log_text(run))
        elif words:
            self.stdout.write(words)


def _chain(run: Run) -> Iterator[Run]:
    """The run, and each run that it is continued in, as soon as it is."""
    following: Run | None = run
    while following is not None:
        yield following
        following = Run.objects.filter(request_id=actions.continuation_id(following)).first()


class _Foreground:
    """Drives one run in this process, next to whatever workers there are."""

    def __init__(self, run: Run, user: User, console: Console, *, yes: bool, no: bool) -> None:
        self._run = run
        self._user = user
        self._console = console
        self._name = worker_name()
        self._verdict = "approve" if yes else "reject" if no else ""
        self._interactive = sys.stdin.isatty() and not console.quiet
        self._trace = Trace(console)

    def work(self) -> None:
        """Until the run is over, paused, or waits for a decision nobody here can take."""
        listener = Listener()
        try:
            with Heart() as heart:
                while True:
                    lease = actions.claim(self._run.pk, self._name)
                    if lease is not None:
                        heart.hold(lease)
                        self._drive(lease)
                        heart.release(lease)
                    self._run.refresh_from_db()
                    self._trace.catch_up(self._run)
                    if self._run.is_ended or self._run.status == RunStatus.PAUSED:
                        return
                    if self._run.status == RunStatus.WAITING and not self._decide():
                        return
                    if lease is None:
                        actions.expire_approvals(timezone.now())
                        listener.wait(0.2)
        finally:
            listener.close()

    def _drive(self, lease: actions.Lease) -> None:
        """Drive in a thread, show the trace in this one; Ctrl-C hands the run back."""
        stop, done = threading.Event(), threading.Event()

        def target() -> None:
            try:
                drive(lease, stop.is_set)
            finally:
                connections.close_all()
                done.set()

        thread = threading.Thread(target=target, name="drive")
        thread.start()
        try:
            self._trace.follow(self._run, done)
        except KeyboardInterrupt:
            stop.set()
            raise
        finally:
            thread.join()

    def _decide(self) -> bool:
        """Decide every open approval of the run; False when nobody here can."""
        pending = list(Approval.objects.filter(run=self._run, state=ApprovalState.PENDING).order_by("pk"))
        for approval in pending:
            verdict, reason = self._verdict, f"by runagent --{'yes' if self._verdict == 'approve' else 'no'}"
            if not verdict:
                if not self._interactive:
                    return False
                verdict, reason = self._ask(approval)
            try:
                actions.decide(
                    approval_id=approval.pk,
                    voter=self._user,
                    verdict="approve" if verdict == "approve" else "reject",
                    reason=reason,
                    revision=approval.revision,
                    digest=approval.digest,
                )
            except actions.AlreadyDecided as error:
                self._console.print(str(error), style="yellow")
            except actions.MayNotDecide as error:
                self._console.print(str(error), style="red")
                return False
        if not pending:
            time.sleep(0.05)  # it was decided elsewhere a moment ago
        return True

    def _ask(self, approval: Approval) -> tuple[str, str]:
        asked = f"\n{approval.card['headline']} in {approval.environment}?"
        self._console.print(plain(asked), style="bold", markup=False)
        self._console.print(f"  {line(approval.arguments)}", style="dim", markup=False)
        self._console.print(f"  {approval.rule}: {line(approval.rule_reason)}", style="dim", markup=False)
        answer = Prompt.ask("approve or reject", choices=["approve", "reject"], console=self._console)
        reason = Prompt.ask("why (sent to the agent)", default="", console=self._console)
        return answer, reason


def _closing_words(run: Run) -> str:
    if run.status == RunStatus.WAITING:
        return f"Run {run.request_id} waits for a decision: decide on the Approvals page, a worker goes on."
    if run.status in {RunStatus.QUEUED, RunStatus.RUNNING}:
        return f"Run {run.request_id} is in the queue: `manage.py worker` goes on with it."
    return ""
