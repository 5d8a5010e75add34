"""Who uses the installation of `soak.py`: they ask, decide, interfere, and in the end check everything."""

from __future__ import annotations

import json
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib.auth.models import User
from django.db import OperationalError, connections
from django.db.models import Count, Sum
from django.utils import timezone

from agentops.agents import AGENTS
from runs import actions
from runs.engine.history import messages
from runs.models import ENDED, Approval, ApprovalState, Event, Run, RunStatus, Step, StepKind
from runs.reading.invariants import STARTED
from tests.factories import contradictions_beside_deadlines
from tools.backends import estate
from tools.models import Ticket, WorldAction

MOST_RETRIES = 3  # of one run: some of the faults would fail it again and again


class People:
    """They act in threads of this process, each with a chance of its own."""

    def __init__(self, runs: int, seed: int) -> None:
        self._wanted = runs
        self._seed = seed
        self._voter = User.objects.create_superuser("olga")
        self._draining = threading.Event()
        self._over = threading.Event()
        self._retries: Counter[int] = Counter()
        self.problems: list[str] = []
        self._threads = [
            threading.Thread(target=self._live, args=(act, pause), name=act.__name__)
            for act, pause in ((self._ask, 0.2), (self._decide, 0.3), (self._interfere, 0.3))
        ]

    def begin(self) -> None:
        """Everybody starts."""
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """From now on nothing is added, and whatever waits for a person is answered."""
        self._draining.set()

    def end(self) -> None:
        """Everybody leaves."""
        self._over.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(60)

    def left(self) -> int:
        """Runs that have not ended."""
        return Run.objects.exclude(status__in=ENDED).count()

    def says(self) -> str:
        """One line about the runs of now."""
        counts = dict(Run.objects.order_by().values_list("status").annotate(Count("pk")))
        return ", ".join(f"{counts[status]} {status}" for status in RunStatus.values if status in counts)

    def _live(self, act: Callable[[random.Random], None], pause: float) -> None:
        chance = random.Random(f"{self._seed} {act.__name__}")
        try:
            while not self._over.wait(pause):
                try:
                    act(chance)
                except actions.ActionError:
                    pass  # somebody was quicker; the sentence would be shown to a person
                except OperationalError as error:
                    self.problems.append(f"{act.__name__}: the database did not answer: {error}")
                except Exception:
                    self.problems.append(f"{act.__name__}: {traceback.format_exc()[-400:]}")
        finally:
            connections.close_all()

    def _ask(self, chance: random.Random) -> None:
        """Keep so many runs going."""
        while not self._draining.is_set() and self.left() < self._wanted:
            incident = chance.choice(estate.scenarios())
            actions.start_run(
                question=incident.alert,
                agent=AGENTS[0].name,
                user=chance.choice([self._voter, None]),
                started_by="soak",
                scenario=incident.id,
            )

    def _decide(self, chance: random.Random) -> None:
        """Some of what is open gets an answer now; some of it runs out."""
        for approval in Approval.objects.filter(state=ApprovalState.PENDING).order_by("pk"):
            fate = chance.random()
            if fate < 0.5 and not self._draining.is_set():
                continue  # later
            if chance.random() < 0.15:
                Approval.objects.filter(pk=approval.pk).update(expires_at=timezone.now())
                continue
            actions.decide(
                approval_id=approval.pk,
                voter=self._voter,
                verdict="reject" if chance.random() < 0.3 else "approve",
                reason=chance.choice(["", "As discussed.", "Not now"]),
                revision=approval.revision,
                digest=approval.digest,
            )

    def _interfere(self, chance: random.Random) -> None:
        """Do something with some run, whether it fits or not. Paused runs go on sooner or later."""
        draining = self._draining.is_set()
        for run in Run.objects.filter(status=RunStatus.PAUSED):
            if draining or chance.random() < 0.2:
                actions.resume_run(run_id=run.pk, actor="oscar")
        if draining:
            return
        going = list(Run.objects.exclude(status__in=ENDED).values_list("pk", flat=True))
        ended = list(Run.objects.filter(status__in=ENDED).order_by("-pk").values_list("pk", flat=True)[:30])
        what = chance.choices(["pause", "cancel", "retry", "fork", "ask", "rest"], [30, 6, 12, 3, 4, 45])[0]
        if what in {"pause", "cancel"} and going:
            act = actions.pause_run if what == "pause" else actions.cancel_run
            act(run_id=chance.choice(going), actor="oscar")
        elif what == "retry":
            self._retry(chance)
        elif what == "fork" and going + ended:
            self._fork(chance, chance.choice(going + ended))
        elif what == "ask" and ended:
            question = "Which deployment was it?"
            actions.ask_follow_up(
                run_id=chance.choice(ended), actor="oscar", user=self._voter, question=question
            )

    def _retry(self, chance: random.Random) -> None:
        failed = Run.objects.filter(status__in=[RunStatus.FAILED, RunStatus.STOPPED])
        found = list(failed.order_by("-pk")[:30])
        if not found:
            return
        run = chance.choice(found)
        if self._retries[run.pk] >= MOST_RETRIES:
            return
        self._retries[run.pk] += 1
        limit = run.frozen["limits"].get(run.reason) if run.status == RunStatus.STOPPED else None
        limits = {run.reason: str(round(float(limit) * 2))} if limit else {}
        actions.retry_run(run_id=run.pk, actor="oscar", limits=limits)

    def _fork(self, chance: random.Random, run_id: int) -> None:
        seqs = list(Step.objects.filter(run=run_id).values_list("seq", flat=True))
        if seqs:
            actions.fork_run(
                run_id=run_id,
                actor="oscar",
                user=self._voter,
                step=chance.choice(seqs),
                instruction="Look at the database first.",
            )

    def verdict(self) -> dict[str, Any]:
        """Check every run; what was done and what is wrong."""
        began = time.monotonic()
        wrong = list(self.problems)
        for run in Run.objects.order_by("pk").iterator(chunk_size=100):
            wrong += [f"run {run.pk}: {sentence}" for sentence in check(run)]
        print(f"checked in {time.monotonic() - began:.0f} s", flush=True)
        turns = Step.objects.filter(kind=StepKind.MODEL)
        failed = Counter(turns.filter(status="failed").values_list("error_kind", flat=True))
        totals = Run.objects.aggregate(Sum("tool_calls"))
        claims = Event.objects.filter(kind="run.claimed").values_list("data", flat=True)
        return {
            "runs": Run.objects.count(),
            "turns": turns.filter(status="succeeded").count(),
            "tool_calls": totals["tool_calls__sum"] or 0,
            "statuses": dict(Counter(Run.objects.values_list("status", flat=True))),
            "approvals": dict(Counter(Approval.objects.values_list("state", flat=True))),
            "changes": WorldAction.objects.count(),
            "takeovers": sum(bool(json.loads(data)["taken_over_from"]) for data in claims),
            "lost_turns": failed.pop("worker_lost", 0),
            "cancelled_turns": failed.pop("run_ended", 0),
            "faults": dict(failed.most_common()),
            "violations": wrong,
            "stuck": self.left(),
        }


def check(run: Run) -> Iterator[str]:
    """Every sentence about what is wrong with this run."""
    yield from contradictions_beside_deadlines(run)
    if run.reason == "internal_error":
        yield f"a mistake of ours: {run.explanation}"
    steps = list(run.steps.order_by("seq"))
    if run.is_ended:
        yield from _uses_without_result(run, steps)
    yield from _changes(run, steps)


def _uses_without_result(run: Run, steps: list[Step]) -> Iterator[str]:
    """Each tool use of the conversation has exactly one result, in the next message."""
    said = messages(run, steps)
    for number, message in enumerate(said):
        if message["role"] != "assistant":
            continue
        uses = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        after = said[number + 1]["content"] if number + 1 < len(said) else []
        results = [block["tool_use_id"] for block in after if block["type"] == "tool_result"]
        if uses != results:
            yield f"message {number} uses {uses}, the results are {results}"


def _changes(run: Run, steps: list[Step]) -> Iterator[str]:
    """What happened in the estate was started by a call of this run, once; what was refused did not."""
    calls = {f"call-{run.request_id}-{step.seq}": step for step in steps if step.kind == StepKind.TOOL}
    happened = Counter(
        WorldAction.objects.filter(idempotency_key__startswith=f"call-{run.request_id}-").values_list(
            "idempotency_key", flat=True
        )
    )
    for key, times in happened.items():
        step = calls.get(key)
        if step is None or step.status not in STARTED:
            yield f"{key} happened, its call is {step.status if step else 'missing'}"
        if times > 1:
            yield f"{key} happened {times} times"
    for key, step in calls.items():
        starts = run.events.filter(kind="call.started", data__contains=f'"step":{step.seq},').count()
        made_here = step.effect == "destructive" and step.seq > run.copied_steps
        if made_here and step.status == "succeeded" and not happened[key]:
            yield f"call {step.seq} succeeded and nothing happened"
        if starts > step.attempt:
            yield f"call {step.seq} was started {starts} times in {step.attempt} attempts"
    tickets = Ticket.objects.filter(request_id=str(run.request_id)).count()
    if tickets > 1:
        yield f"it filed {tickets} tickets"
