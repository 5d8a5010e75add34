"""A realistic data set of runs, written in bulk: what `benchmarks/traces.py` reads pages of.

    python -m benchmarks.trace_data STEPS|facts [DAYS]

With DAYS the runs spread over so many days up to now, else they begin every three minutes up to a fixed time.
Run in an installation of its own, with its DATABASE_URL set. Every run is a chain of turns and tool calls
with prose, arguments and results like those of the embedded incident agent, its events chained as always.
The same number of steps is always the same data. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentops.settings")

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.db import OperationalError, connection, transaction  # noqa: E402
from django.db.models import NOT_PROVIDED, Field, JSONField, Model  # noqa: E402

from runs import agents  # noqa: E402
from runs.models import Approval, Charge, Event, Price, Run, RunTag, Step, event_hash  # noqa: E402
from runs.money import FRACTION, Usage  # noqa: E402

HUGE = 30_000  # steps of the longest run
RUNS_AT_ONCE = 2_000
RARE = 400  # every so manieth run has a word of its own
NEWEST = datetime(2026, 11, 20, 12, tzinfo=UTC)
BETWEEN = timedelta(minutes=3)  # from run to run

SERVICES = [f"{name}-{part}" for name in ("checkout", "billing", "search", "identity", "catalog", "ledger")
            for part in ("api", "worker", "db", "cache")]  # fmt: skip
TOOLS = {  # name, effect, share
    "search_logs": ("read", 30), "get_metrics": ("read", 30), "list_deployments": ("read", 12),
    "query_postgres": ("read", 12), "get_trace": ("read", 8), "create_ticket": ("write", 4),
    "restart_connection_pool": ("destructive", 2), "revert_deployment": ("destructive", 2),
}  # fmt: skip
ALERTS = ["PostgreSQL connection pool exhausted", "p99 latency above 2 s", "error rate above 5 %",
          "disk almost full", "queue grows without end", "certificate expires in two days",
          "replication lag above a minute", "memory of all replicas grows"]  # fmt: skip
PEOPLE = ["alert"] * 12 + ["olga", "dana", "vera"] * 4 + [f"person-{n:02}" for n in range(1, 13)]
TAGS = ["false-alarm", "regression", "capacity", "customer", "drill", "flaky", "postmortem", "network"]
PRICES = {  # USD per million tokens: input, write for 5 minutes, for an hour, read, output
    "claude-sonnet-5-5": ("3", "3.75", "6", "0.3", "15"),
    "claude-haiku-5-5": ("1", "1.25", "2", "0.1", "5"),
}
LEVELS = ["INFO", "WARN", "ERROR", "DEBUG"]
SAYINGS = [
    "timeout while waiting for a connection", "connection reset by peer", "deadlock detected, retrying",
    "slow query took longer than its budget", "cache miss, falling back to the database",
    "PoolTimeoutError: QueuePool limit of size 20 overflow 10 reached", "request finished with status 503",
    "retrying with backoff after a timeout", "deployment rolled out to all replicas",
    "データベースへの接続がタイムアウトしました", "garbage collection paused the process",
]  # fmt: skip
PROSE = [
    "The",
    "pool",
    "of",
    "the",
    "service",
    "is",
    "exhausted",
    "because",
    "connections",
    "are",
    "not",
    "given",
    "back",
    "after",
    "the",
    "timeout",
    ".",
    "Before",
    "I",
    "change",
    "anything",
    "I",
    "want",
    "to",
    "see",
    "whether",
    "the",
    "latest",
    "deployment",
    "explains",
    "the",
    "pattern",
    ",",
    "what",
    "the",
    "metrics",
    "said",
    "an",
    "hour",
    "ago",
    ",",
    "and",
    "which",
    "queries",
    "hold",
    "their",
    "connections",
    "longest",
    ".",
    "Memory",
    "looks",
    "normal",
    ",",
    "the",
    "error",
    "rate",
    "follows",
    "the",
    "deployment",
    ",",
    "and",
    "the",
    "logs",
    "of",
    "the",
    "replicas",
    "repeat",
    "the",
    "same",
    "message",
    ".",
]


class Author:
    """Makes up what people, models and tools say."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._lines = [self._line() for _ in range(6_000)]
        self._prose = [" ".join(self.random.choices(PROSE, k=size)) for size in range(20, 220) for _ in "ab"]

    def _line(self) -> str:
        pick = self.random.choice
        return (
            f"2026-11-{self.random.randrange(1, 28):02}T07:{self.random.randrange(60):02}:00Z "
            f"{pick(LEVELS)} {pick(SERVICES)} trace={self.random.getrandbits(48):012x} {pick(SAYINGS)} "
            f"after {self.random.randrange(9_000)} ms"
        )

    def prose(self) -> str:
        """What a model thinks or says."""
        return self.random.choice(self._prose)

    def arguments(self, service: str) -> str:
        """What a tool is asked."""
        query = self.random.choice(("timeout", "error", "deploy", "connection"))
        return json.dumps({"service_name": service, "query": query, "minutes": self.random.randrange(5, 240)})

    def result(self, service: str, evidence: str) -> str:
        """What a tool answers: two kilobytes on average, now and then much more."""
        count = 200 if self.random.random() < 0.002 else max(1, int(self.random.expovariate(1 / 12)))
        lines = self.random.choices(self._lines, k=count)
        data = {"service": service, "lines": lines, "mean": round(self.random.random() * 900, 3)}
        return json.dumps(
            {"status": "ok", "summary": f"{count} lines of {service}", "evidence_id": evidence, "data": data},
            ensure_ascii=False,
        )


class Table:
    """Rows of one model that wait to be written together."""

    def __init__(self, model: type[Model]) -> None:
        fields = model._meta.concrete_fields
        self.name = model._meta.db_table
        self.columns = [field.column for field in fields]
        self._usual = {field.column: _usual(field) for field in fields}
        self._rows: list[list[Any]] = []
        self.written = 0

    def add(self, **values: Any) -> None:
        """One row; columns that are not named have their default."""
        row = self._usual | values
        assert len(row) == len(self.columns), values.keys() - self._usual.keys()
        self._rows.append([row[column] for column in self.columns])

    def write(self) -> None:
        """Write what waits."""
        columns = ", ".join(f'"{column}"' for column in self.columns)
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                with cursor.copy(f"COPY {self.name} ({columns}) FROM STDIN") as copy:
                    for row in self._rows:
                        copy.write_row(row)
            else:
                places = ", ".join("?" for _ in self.columns)
                statement = f"INSERT INTO {self.name} ({columns}) VALUES ({places})"
                cursor.cursor.executemany(statement, _plain(self._rows))  # type: ignore[attr-defined]
        self.written += len(self._rows)
        self._rows.clear()


def _usual(field: Field[Any, Any]) -> Any:
    """The default of a column as the database takes it; None where every row says its own."""
    if isinstance(field, JSONField):
        return json.dumps(field.get_default())
    return None if field.default is NOT_PROVIDED or callable(field.default) else field.default


def _plain(rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
    """As SQLite stores it."""
    for row in rows:
        yield [
            str(value.replace(tzinfo=None)) if isinstance(value, datetime)
            else str(value) if isinstance(value, Decimal)
            else value.hex if isinstance(value, uuid.UUID)
            else value
            for value in row
        ]  # fmt: skip


class Builder:
    """Writes runs, oldest first."""

    def __init__(self) -> None:
        self.author = Author(7)
        self.tables = {model: Table(model) for model in (Run, Step, Event, Approval, Charge, RunTag)}
        agent = next(iter(agents.installed().values()))
        self._world = "w" * 36
        self._config = agent.configuration(world=self._world)
        self._ids = dict.fromkeys(self.tables, 0)
        names = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output")
        self.prices = {
            model: Price.objects.get(
                pk=Price.objects.create(
                    model=model, source="data set", web_search=10, **dict(zip(names, units, strict=True))
                ).pk
            )
            for model, units in PRICES.items()
        }  # fmt: skip

    def next_id(self, model: type[Model]) -> int:
        """Keys are counted here: rows refer to each other before they are written."""
        self._ids[model] += 1
        return self._ids[model]

    def run(self, at: datetime, steps: int) -> None:
        """One run with so many steps."""
        pick = self.author.random
        pk, request_id = self.next_id(Run), uuid.UUID(int=pick.getrandbits(128), version=4)
        service = pick.choice(SERVICES)
        status = pick.choices(("succeeded", "failed", "stopped", "cancelled"), (86, 8, 4, 2))[0]
        turns, calls = (steps + 1) // 2, steps // 2
        rare = f" The ticket of the customer is zx{pk}rare." if pk % RARE == 0 else ""
        story = _Story(self, pk, request_id, at)
        story.agent = pick.choices(("incident", "review"), (9, 1))[0]
        story.user, story.model = pick.choice(PEOPLE), pick.choice(list(PRICES))
        story.event("run.started", agent="incident")
        story.event("run.claimed", fence=1, taken_over_from="")
        cost = Decimal(0)
        for number in range(1, steps + 1):
            cost += story.step(number, service, last=number == steps, rare=rare, failed=status == "failed")
        story.event(f"run.{status}", reason="")
        for tag in pick.sample(TAGS, pick.choices((0, 1, 2), (70, 25, 5))[0]):
            self.tables[RunTag].add(
                id=self.next_id(RunTag), run_id=pk, name=tag, added_by="olga", added_at=story.now
            )
        answer = f"{self.author.prose()} {service} is stable again.{rare}"
        self.tables[Run].add(
            id=pk, request_id=request_id, agent=story.agent, model=story.model,
            user_query=f"{service}: {pick.choice(ALERTS)}", status=status,
            explanation="The model could not be reached. Try again." if status == "failed" else "",
            config=self._config.replace(self._world, str(request_id)), simulated=True,
            started_by=story.user,
            final_response=answer if status == "succeeded" else "", step_count=steps,
            model_calls=turns, tool_calls=calls, **story.tokens, cost_usd=cost, created_at=at,
            started_at=at + timedelta(seconds=0.4), ended_at=story.now, driven_seconds=1.0,
            last_event=story.events, last_event_hash=story.hash,
        )  # fmt: skip

    def write(self) -> None:
        """Write everything that waits in one transaction."""
        with transaction.atomic():
            for table in self.tables.values():
                table.write()

    def finish(self) -> None:
        """Let the database go on counting, and know what it has."""
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                for model, pk in self._ids.items():
                    table = model._meta.db_table
                    cursor.execute(
                        f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), %s)", [max(pk, 1)]
                    )
                cursor.execute("VACUUM ANALYZE")


class _Story:
    """What happens in one run, in order."""

    def __init__(self, builder: Builder, run: int, request_id: uuid.UUID, at: datetime) -> None:
        self.builder, self.run, self.request_id, self.now = builder, run, str(request_id), at
        self.events, self.hash = 0, ""
        self.agent = self.user = self.model = self.caused_by = ""
        self.tokens = dict.fromkeys(
            ("input_tokens", "cache_write_5m_tokens", "cache_read_tokens", "output_tokens"), 0
        )
        self._sent = 0  # tokens of the prompt before
        self._turn = 0

    def event(self, kind: str, **data: Any) -> None:
        """The next link of the chain."""
        self.events += 1
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        before, actor = self.hash, "worker-1"
        self.hash = event_hash(
            previous_hash=before, request_id=self.request_id, seq=self.events, kind=kind, actor=actor,
            data=text, at=self.now,
        )  # fmt: skip
        self.builder.tables[Event].add(
            id=self.builder.next_id(Event), run_id=self.run, seq=self.events, kind=kind, actor=actor,
            data=text, at=self.now, previous_hash=before, hash=self.hash,
        )  # fmt: skip

    def step(self, number: int, service: str, *, last: bool, rare: str, failed: bool) -> Decimal:
        """A turn, or the call that it asked for; returns what it cost."""
        begun = self.now
        self.now += timedelta(seconds=0.2 + self.builder.author.random.expovariate(0.4))
        if number % 2 == 0 and not last:
            self._call(number, service, begun)
            return Decimal(0)
        return self._turn_of(number, service, begun, last=last, rare=rare, failed=failed)

    def _call(self, number: int, service: str, begun: datetime) -> None:
        author = self.builder.author
        names = list(TOOLS)
        name = author.random.choices(names, [TOOLS[item][1] for item in names])[0]
        effect, evidence = TOOLS[name][0], f"ev_{number:02}"
        self.caused_by = name
        wrong = author.random.random() < 0.04
        arguments, step = author.arguments(service), self.builder.next_id(Step)
        self.event("call.allowed", step=number, rule="reads")
        self.event("call.started", step=number)
        self.event("call.finished", step=number, result_sha256="0" * 64)
        self.builder.tables[Step].add(
            id=step, run_id=self.run, seq=number, parent_id=self._turn or None, kind="tool",
            status="failed" if wrong else "succeeded", name=name, summary=f"{service}, last hour",
            started_at=begun, ended_at=self.now, begun_at=begun, tool_use_id=f"toolu_{self.run}_{number}",
            arguments=arguments, result=author.result(service, evidence), is_error=wrong,
            error_kind="timeout" if wrong else "", effect=effect, tool_version="0" * 64,
            evidence_id=evidence, counted_at=begun,
        )  # fmt: skip
        if effect == "destructive":
            self.builder.tables[Approval].add(
                id=self.builder.next_id(Approval), run_id=self.run, step_id=step, arguments=arguments,
                digest="0" * 64, environment="production", rule="destructive-needs-a-person",
                rule_reason="It changes production.", preview='{"headline": "Restart"}', headline="Restart",
                state="approved", created_at=begun, expires_at=self.now, decided_at=self.now,
            )  # fmt: skip

    def _turn_of(
        self, number: int, service: str, begun: datetime, *, last: bool, rare: str, failed: bool
    ) -> Decimal:
        author = self.builder.author
        reasoning, text = author.prose(), author.prose() + (rare if last else "")
        broken = failed and last
        price = self.builder.prices[self.model]
        usage = self._usage()
        cost = price.units.cost(usage)
        used = {name: getattr(usage, name) for name in self.tokens}
        self.tokens = {name: self.tokens[name] + value for name, value in used.items()}
        self._turn = self.builder.next_id(Step)
        self.event("model.started", step=number, attempt=1, request_sha256="0" * 64)
        self.event("model.failed" if broken else "model.finished", step=number, cost_usd=str(cost))
        blocks: list[dict[str, Any]] = [
            {"type": "thinking", "thinking": reasoning, "signature": f"{author.random.getrandbits(800):x}"},
            {"type": "text", "text": text},
        ]
        if not last:
            use = {"id": f"toolu_{self.run}_{number + 1}", "input": {"service_name": service}}
            blocks.append({"type": "tool_use", "name": "search_logs"} | use)
        self.builder.tables[Step].add(
            id=self._turn, run_id=self.run, seq=number, kind="model", name=self.model,
            status="failed" if broken else "succeeded", summary=text[:120], started_at=begun,
            ended_at=self.now, message=json.dumps({"id": "msg", "role": "assistant", "content": blocks}),
            reasoning=reasoning, text=text, stop_reason="end_turn" if last else "tool_use",
            error="The model is overloaded." if broken else "", error_kind="overloaded" if broken else "",
            request_sha256="0" * 64, max_tokens=4_096,
            **used, cost_usd=cost, price_source="genai-prices", unit_prices='{"input": "3"}',
        )  # fmt: skip
        self.builder.tables[Charge].add(
            id=self.builder.next_id(Charge), step_id=self._turn, at=self.now, booked_at=self.now,
            run_id=self.run, agent=self.agent, user=self.user, model=self.model, simulated=True,
            caused_by=self.caused_by, failed=broken, price_id=price.pk, amount=int(cost * FRACTION), **used,
        )  # fmt: skip
        return cost

    def _usage(self) -> Usage:
        """The prompt grows with each turn, up to a bound; some turns miss the cache."""
        pick = self.builder.author.random
        new, read = pick.randrange(400, 3_000), self._sent
        if pick.random() < 0.04:
            new, read = new + read, 0
        self._sent = min(150_000, read + new)
        return Usage(
            input_tokens=pick.randrange(2, 30), cache_write_5m_tokens=new,
            cache_read_tokens=read, output_tokens=pick.randrange(90, 500),
        )  # fmt: skip


def build(steps: int, days: float | None = None) -> dict[str, Any]:
    """Write runs until there are so many steps; one of them is huge when there is room for it.

    The huge one takes a day, so with `days` it ends where the others are.
    """
    began = time.monotonic()
    builder = Builder()
    sizes = _sizes(steps, builder.author.random)
    between, until = (timedelta(days=days) / len(sizes), datetime.now(UTC)) if days else (BETWEEN, NEWEST)
    at = until - between * len(sizes)
    for number, size in enumerate(sizes, start=1):
        builder.run(at, size)
        at += between
        if number % RUNS_AT_ONCE == 0 or number == len(sizes):
            builder.write()
    builder.finish()
    huge = sizes.index(max(sizes)) + 1
    return {
        "runs": len(sizes), "steps": builder.tables[Step].written, "events": builder.tables[Event].written,
        "build_s": round(time.monotonic() - began, 1), "huge": huge,
    }  # fmt: skip


def _sizes(steps: int, source: random.Random) -> list[int]:
    """Steps of each run, oldest first: nine on average, the huge one in the middle."""
    left = steps - (HUGE if steps > HUGE + HUGE // 2 else 0)
    sizes = []
    while left > 0:
        size = min(left, source.choices((1, 3, 5, 7, 9, 11, 13, 17, 25), (4, 8, 14, 18, 20, 16, 10, 7, 3))[0])
        sizes.append(size)
        left -= size
    if steps > HUGE + HUGE // 2:
        sizes.insert(len(sizes) // 2, HUGE)
    return sizes


def facts() -> dict[str, Any]:
    """What the measurement needs: a session, ids of runs, and how large everything is."""
    user, _ = User.objects.get_or_create(username="reader")
    session = SessionStore()
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[-1]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    runs = Run.objects.order_by("pk")
    rare = [pk for pk in runs.filter(status="succeeded").values_list("pk", flat=True) if pk % RARE == 0]
    dozen = runs.filter(step_count__in=(11, 13)).values_list("request_id", flat=True)
    longest = runs.order_by("-step_count").values_list("request_id", flat=True)[0]
    return {
        "session": session.session_key, "rare": rare[:4], "huge": str(longest),
        "dozen": [str(request_id) for request_id in dozen[:20]], "sizes": _sizes_on_disk(),
    }  # fmt: skip


def _sizes_on_disk() -> dict[str, int]:
    """Bytes per table and index."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT relname, pg_table_size(oid) FROM pg_class WHERE relkind IN ('r', 'i') "
                "AND relnamespace = 'public'::regnamespace"
            )
            return dict(cursor.fetchall())
        try:
            cursor.execute("PRAGMA page_size")
            page = cursor.fetchone()[0]
            cursor.execute("SELECT name, count(*) FROM dbstat GROUP BY name")
            return {name: count * page for name, count in cursor.fetchall()}
        except OperationalError:  # this build of SQLite cannot say
            return {"file": os.path.getsize(connection.settings_dict["NAME"])}


if __name__ == "__main__":
    print(
        json.dumps(facts() if sys.argv[1] == "facts" else build(int(sys.argv[1]), *map(float, sys.argv[2:])))
    )
