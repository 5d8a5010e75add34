"""Runs with random usage that race for shared budgets through the real decision and the real ledger.

    python -m tests.budget_race play RUNS THREADS SEED        (with Django's settings; prints one JSON object)

Only the model is missing: what it would have used is drawn at random within what was reserved.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import django

if __name__ == "__main__":
    django.setup()

from django.contrib.auth.models import User
from django.db import connections
from django.db.models import F, Q
from django.utils import timezone

from runs import actions
from runs.actions import Charge, Lease
from runs.agents import Limits
from runs.engine import rooms
from runs.engine.limits import Exceeded, Reservation, Spent
from runs.models import AtLimit, Run, RunStatus, Spending, Step, StepKind
from runs.models.amounts import counted
from runs.money import UnitPrices, Usage, unit_prices
from runs.reading.budgets import ledger_contradictions

MODEL = "claude-sonnet-5-5"
USERS = ("ann", "ben")
TAGS = ("checkout", "night")  # with hard budgets: a run has them from its start
MOVED = "later"  # with a soft budget: put on runs and taken off while they are under way


def prepare(runs: int) -> None:
    """Budgets of every scope and period; a race of so many runs uses up those of the tags."""
    for name in USERS:
        User.objects.get_or_create(username=name)
    share = Decimal(runs) / 100

    def budget(scope: str, period: str, at_limit: str = "wrap_up", **values: str) -> None:
        limits = {name: values.pop(name) for name in ("cost_usd", "tokens") if name in values}
        actions.set_budget(
            actor="race", scope=scope, period=period, limits=limits, at_limit=at_limit, **values
        )

    budget("installation", "month", cost_usd=f"{share * 6:.4f}")
    budget("agent", "day", agent="incident", tokens=str(int(share * 2_000_000)))
    budget("user", "week", "pause", user=USERS[0], cost_usd=f"{share:.4f}")
    budget("user", "day", user=USERS[1], tokens=str(int(share * 400_000)))
    budget("tag", "week", tag=TAGS[0], cost_usd=f"{share:.4f}")
    budget("tag", "month", "pause", tag=TAGS[1], tokens=str(int(share * 300_000)), cost_usd=f"{share:.4f}")
    budget("tag", "day", "notify", tag=MOVED, cost_usd=f"{share / 10:.4f}")


def race(runs: int, *, threads: int, seed: int) -> Counter[str]:
    """Drive so many runs in so many threads; what happened, by name, `violations` above all."""
    happened: Counter[str] = Counter(violations=0)
    lock, numbers = threading.Lock(), iter(range(runs))
    problems: list[BaseException] = []

    def work() -> None:
        try:
            while not problems:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                found = _Racer(random.Random(f"{seed} {number}")).run()
                with lock:
                    happened.update(found)
        except BaseException as problem:
            problems.append(problem)
        finally:
            connections.close_all()

    started = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if problems:
        raise problems[0]
    return happened


def exceeded() -> int:
    """Ledgers of hard budgets that stand above a limit, calls under way included."""
    hard = Spending.objects.exclude(budget__at_limit=AtLimit.NOTIFY).filter(simulated=True)
    over = Q(budget__cost_usd__lt=F("cost_usd") + F("reserved_usd"))
    over |= Q(budget__tokens__lt=F("tokens") + F("reserved_tokens"))
    return hard.filter(over).count()


def audit() -> int:
    """Ledgers that stand above a limit or do not say what their steps say."""
    return exceeded() + len(ledger_contradictions())


class _Racer:
    """One run, from its start to its end."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._happened: Counter[str] = Counter(runs=1)
        name = dice.choice([*USERS, None])
        tags = [tag for tag in TAGS if dice.random() < 0.4]
        user = User.objects.get(username=name) if name else None
        self._run = actions.start_run(
            question="Race", agent="incident", user=user, started_by=name or "alert", tags=tags
        )
        lease = actions.claim(self._run.pk, f"racer-{os.getpid()}-{threading.get_ident()}")
        assert lease is not None
        self._lease: Lease = lease
        self._spent = Spent()
        cost = Decimal(dice.randint(1, 40)) / 100
        self._limits = Limits(tokens=dice.randint(5_000, 200_000), cost_usd=cost)

    def run(self) -> Counter[str]:
        for _ in range(self._dice.randint(1, 4)):
            if not self._call():
                self._happened["held back"] += 1
                break
        actions.end_run(self._lease, status=RunStatus.SUCCEEDED)
        steps = Step.objects.filter(run=self._run, kind=StepKind.MODEL)
        used = [counted(step) for step in steps]
        if (
            sum(tokens for tokens, _ in used) > self._limits.tokens
            or sum(usd for _, usd in used) > self._limits.cost_usd
        ):
            self._happened["violations"] += 1
        return self._happened

    def _call(self) -> bool:
        """One model call; False when there was no room for it."""
        prompt = self._dice.randint(200, 12_000)
        prices = unit_prices(MODEL, at=timezone.now(), prompt_tokens=prompt)
        assert prices is not None
        step = self._begin(prompt, prices, timezone.now())
        if step is None:
            return False
        self._happened["calls"] += 1
        self._happened["violations"] += exceeded()
        if self._dice.random() < 0.2:
            actions.tag_run(run_id=self._run.pk, name=MOVED, actor="race")
        actions.fail_attempt(
            self._lease,
            step,
            action="retry",
            kind="x",
            sentence="x",
            charge=self._charge(step, prompt, prices),
        )
        if self._dice.random() < 0.2:
            actions.untag_run(run_id=self._run.pk, name=MOVED, actor="race")
        tokens, usd = counted(Step.objects.get(pk=step.pk))
        before = self._spent
        self._spent = replace(before, tokens=before.tokens + tokens, cost_usd=before.cost_usd + usd)
        return True

    def _begin(self, prompt: int, prices: UnitPrices, now: datetime) -> Step | None:
        """Decide as the engine does, and reserve; again when another run was faster."""
        wanted, final = self._dice.randint(1_100, 6_000), self._dice.random() < 0.3
        for _ in range(50):
            try:
                run = Run.objects.get(pk=self._run.pk)
                fits = rooms.fit(
                    rooms.shared(run, [], now).rooms,
                    self._limits,
                    self._spent,
                    prompt_tokens=prompt,
                    wanted=wanted,
                    prices=prices,
                    final=final,
                )
                if isinstance(fits, Exceeded):
                    return None
                time.sleep(self._dice.random() / 50)  # others go on meanwhile: what was read is old
                return self._reserve(fits)
            except actions.LedgerMissing:
                actions.open_ledgers()
            except actions.BudgetUsedUp:
                self._happened["races lost"] += 1
        return None

    def _reserve(self, fits: Reservation) -> Step:
        return actions.start_attempt(
            self._lease,
            model=MODEL,
            attempt=1,
            request_sha256="0" * 64,
            max_tokens=fits.max_tokens,
            reserved_tokens=fits.worst_tokens,
            reserved_usd=fits.worst_usd,
        )

    def _charge(self, step: Step, prompt: int, prices: UnitPrices) -> Charge:
        """Any usage that a call of this size can have; one in ten breaks off and is only estimated."""
        sent, dice = self._dice.randint(1, prompt), self._dice
        cached = dice.randint(0, sent)
        written = dice.randint(0, sent - cached)
        usage = Usage(
            input_tokens=sent - cached - written,
            cache_read_tokens=cached,
            cache_write_1h_tokens=written,
            output_tokens=dice.randint(1, step.max_tokens or 1),
        )
        return Charge(usage, prices, estimated=dice.random() < 0.1)


if __name__ == "__main__":
    _, _part, _runs, _threads, _seed = sys.argv
    print(json.dumps(race(int(_runs), threads=int(_threads), seed=int(_seed))))
