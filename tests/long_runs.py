"""Runs with very many steps, written as rows at once: for reading only, without events."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal

from django.core.management.color import no_style
from django.db import connection
from django.utils import timezone

from runs.models import Run, RunStatus, Step, StepKind, StepStatus
from tests.factories import a_run

CALLS = 2  # of each turn
OWN = 3_000  # so many steps have texts and times of their own; those after them repeat the first
RESULT = json.dumps(
    {"status": "ok", "summary": "12 series", "data": {"points": [[n, n * 7 % 31] for n in range(120)]}}
)


def a_long_run(steps: int, *, status: RunStatus = RunStatus.SUCCEEDED, question: str = "A long one") -> Run:
    """A run of so many steps: turns with two calls each, one second apart; every 50th call failed."""
    run = a_run(question)
    start = timezone.now() - timedelta(seconds=steps + 5)
    first = (Step.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1
    own = min(steps, OWN)
    Step.objects.bulk_create(
        _step(run, first, seq, start + timedelta(seconds=seq)) for seq in range(1, own + 1)
    )
    for further in range(own, steps, own):
        _repeat(run, further, own=min(own, steps - further))
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), [Step]):
            cursor.execute(statement)
    turns = (steps + CALLS) // (CALLS + 1)
    Run.objects.filter(pk=run.pk).update(
        status=status,
        started_at=start,
        ended_at=None if status in {RunStatus.RUNNING, RunStatus.WAITING} else timezone.now(),
        step_count=steps,
        model_calls=turns,
        tool_calls=steps - turns,
        input_tokens=1_000 * turns,
        cache_read_tokens=9_000 * turns,
        output_tokens=100 * turns,
        cost_usd=Decimal("0.004") * turns,
        final_response="The pool leaked, see ev_02." if status == RunStatus.SUCCEEDED else "",
    )
    return Run.objects.get(pk=run.pk)


def _repeat(run: Run, further: int, *, own: int) -> None:
    """The first steps once more behind themselves, copied in the database."""
    moved = {"id", "parent_id", "seq"}
    columns = [field.column for field in Step._meta.concrete_fields]
    values = {
        "tool_use_id": f"CASE tool_use_id WHEN '' THEN '' ELSE tool_use_id || '_{further}' END",
        **{column: f"{column} + {further}" for column in moved},
    }
    chosen = ", ".join(values.get(column, f'"{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO runs_step ({names}) SELECT {chosen} FROM runs_step WHERE run_id = %s AND seq <= %s",
            [run.pk, own],
        )


def _step(run: Run, first: int, seq: int, at: datetime) -> Step:
    place = (seq - 1) % (CALLS + 1)
    common = {"pk": first + seq - 1, "run": run, "seq": seq, "started_at": at}
    if place == 0:
        text = f"Turn at step {seq}: let me look further."
        return Step(
            **common, kind=StepKind.MODEL, status=StepStatus.SUCCEEDED, name="claude-sonnet-5-5",
            summary=text, text=text, reasoning=f"I wonder about step {seq}. " * 20,
            message=json.dumps({"role": "assistant", "content": [{"type": "text", "text": text}]}),
            ended_at=at + timedelta(milliseconds=800), stop_reason="tool_use", input_tokens=1_000,
            cache_read_tokens=9_000, output_tokens=100, cost_usd=Decimal("0.004"),
        )  # fmt: skip
    failed = seq % 50 == 0
    return Step(
        **common, kind=StepKind.TOOL, parent_id=first + seq - 1 - place, name="get_metrics", effect="read",
        status=StepStatus.FAILED if failed else StepStatus.SUCCEEDED, is_error=failed,
        error_kind="timeout" if failed else "", error=f"No answer within {seq} s." if failed else "",
        summary=f"api db_pool_in_use, look {seq}", ended_at=at + timedelta(milliseconds=300),
        tool_use_id=f"toolu_{seq}", arguments=json.dumps({"service": "api", "metric": f"m{seq}"}),
        result=RESULT, evidence_id=f"ev_{seq:02}",
    )  # fmt: skip
