"""Repricings: what a dry run found, in sum, by model and run by run, and what became of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from typing import Any

from django.db.models import Count, Sum

from runs.models import LineState, Repricing, RepricingLine
from runs.money import FRACTION
from runs.reading.history_export import cell

ON_A_PAGE = 50
MOST_LISTED = 20
COLUMNS = (
    *("request_id", "run", "agent", "model", "simulated", "charges", "newly_priced", "newly_unpriced"),
    *("usd_before", "usd_after", "usd_difference", "state"),
)


@dataclass(frozen=True, kw_only=True)
class KindSum:
    """What changes in all, simulated and real apart: these are never added together."""

    simulated: bool
    charges: int
    newly_priced: int
    newly_unpriced: int
    before: Decimal
    after: Decimal

    @property
    def shown_before(self) -> Decimal | None:
        """None when none of the charges had a price."""
        return None if self.newly_priced == self.charges else self.before

    @property
    def shown_after(self) -> Decimal | None:
        """None when none of the charges keeps a price."""
        return None if self.newly_unpriced == self.charges else self.after

    @property
    def difference(self) -> Decimal:
        return self.after - self.before


@dataclass(frozen=True, kw_only=True)
class ModelSum(KindSum):
    """What changes at one model."""

    model: str
    runs: int


@dataclass(frozen=True)
class RepricingPage:
    """One repricing with a page of its lines."""

    repricing: Repricing
    models: tuple[ModelSum, ...]
    kinds: tuple[KindSum, ...]  # real first
    lines: tuple[RepricingLine, ...]
    number: int  # of the page, from 1
    pages: int
    done: int  # runs
    left: int
    left_alone: int  # runs that were not as the dry run saw them


def read_repricings() -> tuple[Repricing, ...]:
    """The newest ones, dry runs too."""
    return tuple(Repricing.objects.exclude(digest="")[:MOST_LISTED])


def read_repricing(repricing: Repricing, *, number: int = 1) -> RepricingPage:
    """What it says in sum and by model, and one page of its runs."""
    groups = (
        repricing.lines.order_by("model", "simulated")
        .values("model", "simulated")
        .annotate(
            runs=Count("run", distinct=True),
            sum_charges=Sum("charges"),
            priced=Sum("newly_priced"),
            unpriced=Sum("newly_unpriced"),
            was=Sum("before"),
            now=Sum("after"),
        )
    )
    models = tuple(
        ModelSum(
            model=row["model"], simulated=row["simulated"], runs=row["runs"], charges=row["sum_charges"],
            newly_priced=row["priced"], newly_unpriced=row["unpriced"],
            before=Decimal(row["was"]) / FRACTION, after=Decimal(row["now"]) / FRACTION,
        )
        for row in groups
    )  # fmt: skip
    states = dict(repricing.lines.order_by().values_list("state").annotate(runs=Count("run", distinct=True)))
    pages = max(1, -(-repricing.lines.count() // ON_A_PAGE))
    number = min(max(1, number), pages)
    start = (number - 1) * ON_A_PAGE
    lines = repricing.lines.select_related("run").defer("run__config", "run__final_response")
    return RepricingPage(
        repricing=repricing,
        models=models,
        kinds=tuple(_kinds(models)),
        lines=tuple(lines[start : start + ON_A_PAGE]),
        number=number,
        pages=pages,
        done=states.get(LineState.APPLIED, 0),
        left=states.get(LineState.PLANNED, 0),
        left_alone=states.get(LineState.CHANGED, 0),
    )


def _kinds(models: tuple[ModelSum, ...]) -> Iterator[KindSum]:
    for simulated in (False, True):
        lines = [line for line in models if line.simulated == simulated]
        if lines:
            counts = ("charges", "newly_priced", "newly_unpriced")
            yield KindSum(
                simulated=simulated,
                **{name: sum(getattr(line, name) for line in lines) for name in counts},
                before=sum((line.before for line in lines), Decimal(0)),
                after=sum((line.after for line in lines), Decimal(0)),
            )


def csv_lines(repricing: Repricing) -> Iterator[str]:
    """A heading, and one line per run and model; no cell is a formula to a spreadsheet."""
    yield _line(COLUMNS)
    for row in _rows(repricing):
        yield _line([value if name.startswith("usd") else cell(value) for name, value in row.items()])


def json_lines(repricing: Repricing) -> Iterator[str]:
    """One JSON object per run and model, in ASCII; amounts are text, so that they stay exact.

    An amount is null, and an empty cell in CSV, where none of the charges has a price.
    """
    for row in _rows(repricing):
        yield json.dumps(row, ensure_ascii=True) + "\n"


def _rows(repricing: Repricing) -> Iterator[dict[str, Any]]:
    lines = repricing.lines.select_related("run").defer("run__config", "run__final_response")
    for line in lines.iterator(chunk_size=1_000):
        run = line.run
        before = None if line.newly_priced == line.charges else f"{line.before_usd:f}"
        after = None if line.newly_unpriced == line.charges else f"{line.after_usd:f}"
        values = (
            *(str(run.request_id), run.pk, run.agent, line.model, line.simulated, line.charges),
            *(line.newly_priced, line.newly_unpriced, before, after, f"{line.difference_usd:f}", line.state),
        )
        yield dict(zip(COLUMNS, values, strict=True))


def _line(values: Any) -> str:
    text = StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()
