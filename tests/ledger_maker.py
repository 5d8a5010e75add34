"""Made-up runs with charges of the past, booked and changed as others would."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from runs import actions
from runs.models import Charge, Entry, Price, Run, Step

TOOLS = ("", "search_logs", "get_metrics", "get_metrics,search_logs")


class Ledger:
    """Makes up runs with charges of the past, as others would book and change them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        made = Price.objects.get_or_create(
            model="m", source="test", input=3, cache_write_5m=Decimal("3.75"), cache_write_1h=6,
            cache_read=Decimal("0.3"), output=15, web_search=10,
        )[0]  # fmt: skip
        self.price = Price.objects.get(pk=made.pk)

    def run(self, at: datetime, status: str = "running") -> Run:
        """A run of this time."""
        pick = self.random.choice
        return Run.objects.create(
            agent=pick(("incident", "review")), model="m", user_query="Why?", config="{}", status=status,
            simulated=pick((False, False, True)), started_by=pick(("olga", "dana")), created_at=at,
            started_at=at, ended_at=at if status != "running" else None,
        )  # fmt: skip

    def charge(self, run: Run, at: datetime, **fields: Any) -> Charge:
        """One attempt of this run that ended then."""
        number = self.random.randrange
        seq = Step.objects.filter(run=run).count() + 1
        step = Step.objects.create(
            run=run, seq=seq, kind="model", status="succeeded", name="m",
            started_at=at - timedelta(seconds=number(1, 400)),
        )  # fmt: skip
        charge = Charge(
            step=step, run=run, at=at, agent=run.agent, user=run.started_by, simulated=run.simulated,
            model=self.random.choice(("m", "claude-haiku-5-5")), caused_by=self.random.choice(TOOLS),
            failed=number(8) == 0, estimated=number(9) == 0, input_tokens=number(900),
            cache_write_5m_tokens=number(3) * number(500), cache_write_1h_tokens=number(2) * number(500),
            cache_read_tokens=number(2) * number(9_000), output_tokens=number(700), web_searches=number(2),
        )  # fmt: skip
        if number(10):
            charge.price = self.price
            charge.amount = int(self.price.units.cost(charge.usage) * 10**10)
        for name, value in fields.items():
            setattr(charge, name, value)
        charge.save()
        return charge

    def correct(self, charge: Charge) -> None:
        """Take a charge back and book it with another amount, at its own time."""
        number = charge.step.charges.count()
        back = Charge.objects.get(pk=charge.pk)
        back.pk, back.number, back.entry = None, number, Entry.REVERSAL
        for name in ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output"):
            setattr(back, f"{name}_tokens", -getattr(charge, f"{name}_tokens"))
        back.web_searches, back.amount = -charge.web_searches, charge.amount and -charge.amount
        back.save()
        new = Charge.objects.get(pk=charge.pk)
        new.pk, new.number = None, number + 1
        new.price, new.amount = self.price, self.random.randrange(10**9)
        new.save()
        actions.count_again([charge.run_id])
