"""Searches, their pages and the counts beside them, compared with plain Python over the rows."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qs

import pytest
from django.utils import timezone

from runs import fulltext
from runs.actions.indexing import rebuild_index
from runs.models import Approval, Run, RunNote, RunTag, Step
from runs.reading import facets as counting
from runs.reading import finding
from runs.reading import runs as reading_runs
from runs.reading.facets import Facet, read_facets
from runs.reading.places import SORTS, Sort
from runs.reading.runs import RunPage, RunQuery, count_newer, newest_runs, read_page

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AGENTS, USERS, TAGS = ("incident", "review", "night watch"), ("olga", "ada", "alert"), ("drill", "slow")
WORDS = ("pool", "disk", "queue", "leak", "needle")
TOOLS = {"search_logs": "read", "revert_deployment": "destructive"}
STATUSES = ("queued", "running", "waiting", "paused", "succeeded", "stopped", "failed", "cancelled")
ENDED = ("succeeded", "stopped", "failed", "cancelled")


@dataclass(frozen=True)
class Told:
    """One step as the oracle knows it."""

    words: frozenset[str]
    tool: str
    error: str


@dataclass(frozen=True)
class Row:
    """One run with what its other tables say of it."""

    run: Run
    steps: tuple[Told, ...]
    tags: frozenset[str]
    has: frozenset[str]

    @property
    def pk(self) -> int:
        return self.run.pk

    def key(self, sort: str) -> tuple[float | Decimal | datetime, int]:
        """What the list is ordered by, told from the row."""
        run = self.run
        lasted = (run.ended_at or NOW) - run.started_at if run.started_at else timedelta()
        keys = {
            "time": run.created_at, "cost": run.cost_usd, "tokens": run.total_tokens, "steps": run.step_count,
            "duration": round(lasted.total_seconds(), 2),
        }  # fmt: skip
        return keys[sort], run.pk


def made(seed: int, count: int) -> list[Row]:
    """Runs whose times are not in the order of their keys, with ties, gaps, and ends before their begin."""
    dice = random.Random(seed)
    runs, told = [], []
    for _ in range(count):
        status = dice.choice(STATUSES)
        began = NOW - timedelta(minutes=dice.randrange(60)) if dice.random() < 0.8 else None
        ended = (began or NOW) + timedelta(seconds=dice.choice([-90, -5, 0, 30, 600]))
        runs.append(
            Run(
                agent=dice.choice(AGENTS),
                started_by=dice.choice(USERS),
                model="m",
                config="{}",
                status=status,
                user_query=" ".join(dice.sample(WORDS, dice.randrange(3))),
                final_response=dice.choice(WORDS) if status == "succeeded" else "",
                cost_usd=Decimal(dice.randrange(5)) / 10,
                input_tokens=dice.randrange(4) * 1000,
                step_count=dice.randrange(6),
                simulated=dice.random() < 0.5,
                started_at=began,
                created_at=NOW - timedelta(seconds=dice.randrange(40)),
                ended_at=ended if status in ENDED else None,
            )
        )
    for run in Run.objects.bulk_create(runs):
        steps = [
            Told(
                frozenset(dice.sample(WORDS, 2)), dice.choice(["", *TOOLS]), dice.choice(["", "", "timeout"])
            )
            for _ in range(dice.randrange(3))
        ]
        told.append((run, steps))
    stored = Step.objects.bulk_create(
        Step(
            run=run, seq=seq, kind="tool" if step.tool else "model", name=step.tool or "m",
            effect=TOOLS.get(step.tool, ""), text=" ".join(sorted(step.words)), error_kind=step.error,
            status="failed" if step.error else "succeeded",
        )
        for run, steps in told for seq, step in enumerate(steps, start=1)
    )  # fmt: skip
    first = {step.run_id: step for step in reversed(stored)}
    rows = [
        Row(
            run,
            tuple(steps),
            frozenset(tag for tag in TAGS if dice.random() < 0.3),
            frozenset(
                ["note"] * (dice.random() < 0.3) + ["approval"] * (bool(steps) and dice.random() < 0.4)
            ),
        )
        for run, steps in told
    ]
    RunTag.objects.bulk_create(
        RunTag(run=row.run, name=tag, added_by="olga", added_at=NOW) for row in rows for tag in row.tags
    )
    RunNote.objects.bulk_create(
        RunNote(run=row.run, text="Look.", written_by="olga") for row in rows if "note" in row.has
    )
    Approval.objects.bulk_create(
        Approval(run=row.run, step=first[row.pk], expires_at=NOW, state="expired", preview="{}")
        for row in rows
        if "approval" in row.has
    )
    list(rebuild_index())
    return rows


# -------------------------------------------------- the oracle: terms as (field, values, negated)

Term = tuple[str, tuple[str, ...], bool]
OF_STEPS = ("", "tool", "effect", "error")


def in_step(step: Told, field: str, value: str) -> bool:
    if field == "error":
        return bool(step.error) and value in {"any", step.error}
    holds = {"": step.words, "tool": {step.tool}, "effect": {TOOLS.get(step.tool, "")}}
    return value in holds[field]


def entries(row: Row) -> list[Told]:
    """What has to hold all words at once: each step, and question and answer together."""
    said = f"{row.run.user_query} {row.run.final_response if row.run.status in ENDED else ''}"
    return [*row.steps, Told(frozenset(said.split()), "", "")]


def of_run(row: Row, field: str, value: str) -> bool:
    run = row.run
    if field in {"status", "agent"}:
        return bool(getattr(run, field) == value)
    if field == "user":
        return run.started_by.startswith(value[:-1]) if value.endswith("*") else run.started_by == value
    if field == "tag":
        return value in row.tags
    if field == "has":
        return value in row.has
    if field == "is":
        return {"open": not run.ended_at, "ended": bool(run.ended_at), "simulated": run.simulated,
                "live": not run.simulated}[value]  # fmt: skip
    number = {"cost": run.cost_usd, "steps": run.step_count, "tokens": run.total_tokens}[field]
    sign, bound = re.fullmatch(r"([<>]=?)([\d.]+)", value).groups()  # type: ignore[union-attr]
    compare: dict[str, Callable[[Decimal], bool]] = {
        "<": lambda b: number < b, "<=": lambda b: number <= b, ">": lambda b: number > b,
        ">=": lambda b: number >= b,
    }  # fmt: skip
    return compare[sign](Decimal(bound))


def fits(row: Row, terms: list[Term]) -> bool:
    inside = [term for term in terms if term[0] in OF_STEPS]
    for field, values, negated in terms:
        if field in OF_STEPS:
            anywhere = any(in_step(one, field, value) for one in entries(row) for value in values)
            if negated and anywhere:
                return False
        elif any(of_run(row, field, value) for value in values) == negated:
            return False
    wanted = [term for term in inside if not term[2]]
    return not wanted or any(
        all(any(in_step(one, field, value) for value in values) for field, values, _ in wanted)
        for one in entries(row)
    )


VALUES = {
    "": WORDS, "tool": tuple(TOOLS), "effect": ("read", "destructive"), "error": ("any", "timeout"),
    "status": STATUSES, "agent": AGENTS, "user": (*USERS, "a*"), "tag": TAGS, "has": ("note", "approval"),
    "is": ("open", "ended", "simulated", "live"), "cost": (">0.1", "<=0.2"), "steps": (">=2", "<4"),
    "tokens": (">0", "<2000"),
}  # fmt: skip


def some_terms(dice: random.Random) -> list[Term]:
    terms: list[Term] = []
    for _ in range(dice.choice([0, 1, 1, 2, 2, 3, 4])):
        field = dice.choice(list(VALUES))
        several = field in {"status", "agent", "tag", "tool"} and dice.random() < 0.3
        values = tuple(dice.sample(VALUES[field], 2 if several else 1))
        if field != "" and " " in "".join(values):  # in quotation marks a comma is no comma
            values = values[:1]
        terms.append((field, values, dice.random() < 0.3))
    return terms


def written(terms: list[Term]) -> str:
    return " ".join(
        f"{'-' if negated else ''}{field + ':' if field else ''}"
        + (f'"{values[0]}"' if " " in values[0] else ",".join(values))
        for field, values, negated in terms
    )


# -------------------------------------------------------------------------------------- pages


@pytest.fixture(params=["as it is", "hardly anything is few"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Runs that are read at once, and the same where every word and number is one of many."""
    monkeypatch.setattr(reading_runs, "PAGE_SIZE", 8)
    if request.param != "as it is":
        for name, value in {"FEW": 3, "WINDOW": 9, "FIRST_WINDOW": 1, "MOST_WINDOWS": 3, "PROBED": 4}.items():
            monkeypatch.setattr(finding, name, value)
        monkeypatch.setattr(finding, "MOST_READ_WINDOWS", 2)
        monkeypatch.setattr(fulltext, "FEW", 2)
        monkeypatch.setattr(fulltext, "AT_ONCE", 3)
    return made(5, 60)


def pages(query: RunQuery, now: datetime = NOW) -> Iterator[RunPage]:
    """All pages of a search, in the order of their links."""
    following: RunQuery | None = query
    for _ in range(200):
        if following is None:
            return
        assert following.error is None, following.error
        page = read_page(RunQuery.parse(parse_of(following)), now=now)  # as the address says it
        yield page
        following = page.next or page.further
    raise AssertionError(f"{query} never ends")


def parse_of(query: RunQuery) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query.address).items()}


@pytest.mark.parametrize("seed", range(2))
def test_each_run_of_a_search_is_reached_once_in_every_order(rows: list[Row], seed: int) -> None:
    dice = random.Random(seed)
    for sort in [Sort(name, ascending) for name in SORTS for ascending in (False, True)]:
        for _ in range(2):
            terms = some_terms(dice)
            wanted = sorted((row for row in rows if fits(row, terms)), key=lambda row: row.key(sort.name))
            wanted = wanted if sort.ascending else wanted[::-1]
            found = [pk for page in pages(RunQuery(written(terms), sort)) for pk in page.pks]
            said = f"{written(terms)!r} by {sort.words}"
            assert sorted(found) == sorted(row.pk for row in wanted), said
            of = {row.pk: row.key(sort.name) for row in rows}
            if sort.name == "duration":  # equal ones are an instant apart for a database
                keys = [of[pk][0] for pk in found]
                assert keys == sorted(keys, reverse=not sort.ascending), said  # type: ignore[type-var]
            else:
                assert found == [row.pk for row in wanted], said


@pytest.mark.parametrize(
    "text,sort",
    [
        ("-pool status:succeeded,failed,running,waiting", Sort()),
        ("pool", Sort()),
        ("-tool:nothing", Sort("cost", ascending=True)),
        ("", Sort("duration")),
    ],
)
def test_the_way_back_holds_each_run_once_too(rows: list[Row], text: str, sort: Sort) -> None:
    forwards = list(pages(RunQuery(text, sort)))
    there = [pk for page in forwards for pk in page.pks]
    back: RunQuery | None = [page for page in forwards if page.rows][-1].previous
    before: list[int] = []
    while back is not None and len(before) < 1_000:
        page = read_page(RunQuery.parse(parse_of(back)), now=NOW)
        before = page.pks + before
        back = page.previous or page.further
    last = [page for page in forwards if page.rows][-1].pks
    assert before + last == there


def test_open_runs_keep_their_places_in_the_order_by_duration_while_time_passes(rows: list[Row]) -> None:
    found: list[int] = []
    now = NOW
    query: RunQuery | None = RunQuery("", Sort("duration"))
    while query is not None and len(found) < 1_000:
        page = read_page(RunQuery.parse(parse_of(query)), now=now)
        found += page.pks
        query, now = page.next or page.further, now + timedelta(minutes=7)
    assert sorted(found) == sorted(row.pk for row in rows)


@pytest.mark.parametrize("text,sort", [("", "-time"), ("pool", ""), ("-agent:review", "-duration")])
def test_runs_that_arrive_between_two_pages_shift_nothing(rows: list[Row], text: str, sort: str) -> None:
    dice = random.Random(f"{sort} {text}")
    wanted = {row.pk for row in rows if text in {"", "-agent:review"} or fits(row, [("", (text,), False)])}
    wanted = {
        row.pk for row in rows if row.pk in wanted and (not text.startswith("-") or row.run.agent != "review")
    }
    found: list[int] = []
    for page in pages(RunQuery(text, Sort.parse(sort))):
        found += page.pks
        at = NOW - timedelta(seconds=dice.randrange(40))
        late = Run(
            agent="incident", started_by="ada", model="m", config="{}", user_query="pool", created_at=at,
            started_at=at, ended_at=at if dice.random() < 0.5 else None, cost_usd=Decimal("0.2"),
            step_count=3,
        )  # fmt: skip
        late.status = "failed" if late.ended_at else "queued"
        late.save()
    assert len(found) == len(set(found))
    assert wanted <= set(found)


@pytest.mark.parametrize(
    "place", ["-90-3", "-90.5-3-1760000000000000", "999999999999999999-3", "0.1-3-1", "-0-1"]
)
def test_any_place_in_an_address_is_a_place_or_left_out(place: str) -> None:
    for sort in SORTS:
        for name in ("before", "after"):
            query = RunQuery.parse({"q": "-agent:x", "sort": sort, name: place})
            assert read_page(query, now=NOW).rows == ()


# ------------------------------------------------------------------------------------- counts


def counted(facet: Facet, exact: int, capped: int) -> bool:
    """A count is exact, or says that there may be more and is no larger."""
    return facet.count == exact if not facet.is_more else facet.count <= exact or facet.count == capped


@pytest.mark.parametrize("seed", range(2))
def test_a_count_says_how_many_runs_a_click_on_it_leads_to(rows: list[Row], seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(10):
        terms = some_terms(dice)
        said = written(terms)
        shown = read_facets(RunQuery(said), now=NOW)
        for name, facets in {"status": shown.statuses, "agent": shown.agents, "tag": shown.tags}.items():
            rest = [term for term in terms if term[0] != name or term[2]]
            for facet in facets:
                exact = sum(fits(row, [*rest, (name, (facet.value,), False)]) for row in rows)
                assert counted(facet, exact, counting.CAP), (said, name, facet, exact)
                assert facet.chosen == any(
                    facet.value in v for f, v, minus in terms if f == name and not minus
                )
                asked = RunQuery.parse({n: v[0] for n, v in parse_qs(facet.address).items()})
                led = [pk for page in pages(asked) for pk in page.pks]
                after = rest if facet.chosen else [*rest, (name, (facet.value,), False)]
                assert sorted(led) == sorted(row.pk for row in rows if fits(row, after)), (said, facet)
            unlisted = {getattr(row.run, name) for row in rows if fits(row, rest)} if name != "tag" else set()
            assert unlisted <= {facet.value for facet in facets} or all(facet.is_more for facet in facets), (
                said
            )
        for name, facets in (("has", shown.has), ("is", shown.is_)):
            for facet in facets:
                exact = sum(fits(row, [*terms, (name, (facet.value,), False)]) for row in rows)
                assert counted(facet, exact, counting.CAP), (said, name, facet, exact)


def test_counts_show_a_plus_whenever_looking_stopped_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 runs few fit; only the newest ones are looked through, and every count says so."""
    runs = Run.objects.bulk_create(
        Run(
            agent="rare" if n % 50 == 0 else "incident", status="queued", model=f"m{n % 7}", config="{}",
            started_by="ada", created_at=NOW - timedelta(seconds=n),
        )
        for n in range(300)
    )  # fmt: skip
    monkeypatch.setattr(finding, "FEW", 20)
    monkeypatch.setattr(finding, "WINDOW", 20)
    shown = {facet.value: facet.shown for facet in read_facets(RunQuery("model:m3"), now=NOW).statuses}
    assert shown["queued"] == f"{sum(run.model == 'm3' for run in runs[:40])}+"
    assert shown["failed"] == "0+"
    assert {f.value: f.shown for f in read_facets(RunQuery("agent:rare"), now=NOW).agents}[
        "incident"
    ] == "294"


def test_a_cap_that_is_just_reached_is_no_plus(monkeypatch: pytest.MonkeyPatch) -> None:
    Run.objects.bulk_create(
        Run(agent="incident", status="queued" if n else "failed", model="m", config="{}", started_by="ada")
        for n in range(11)
    )
    monkeypatch.setattr(counting, "CAP", 10)
    of = {
        text: {f.value: f.shown for f in read_facets(RunQuery(text), now=NOW).statuses}
        for text in ("", "is:open")
    }
    assert (of[""]["queued"], of["is:open"]["failed"]) == ("10", "0+")


def test_the_tag_that_was_asked_for_is_counted_also_when_others_are_more_frequent() -> None:
    runs = Run.objects.bulk_create(
        Run(agent="incident", model="m", config="{}", started_by="ada") for _ in range(3)
    )
    RunTag.objects.bulk_create(
        RunTag(run=run, name=f"often-{n}", added_by="ada", added_at=NOW) for run in runs for n in range(9)
    )
    RunTag.objects.create(run=runs[0], name="seldom", added_by="ada", added_at=NOW)
    tags = {
        facet.value: (facet.count, facet.chosen)
        for facet in read_facets(RunQuery("tag:Seldom"), now=NOW).tags
    }
    assert tags["seldom"] == (1, True)


def test_a_run_found_by_its_id_is_counted_and_acted_on_like_any_other() -> None:
    run = Run.objects.create(agent="incident", model="m", config="{}", started_by="ada", status="failed")
    Run.objects.create(agent="incident", model="m", config="{}", started_by="ada")
    text = str(run.request_id)
    shown = {facet.value: facet for facet in read_facets(RunQuery(text), now=timezone.now()).statuses}
    assert shown["failed"].count == 1
    for search, pks in {shown["failed"].address: [run.pk], shown["queued"].address: []}.items():
        query = RunQuery.parse({n: v[0] for n, v in parse_qs(search).items()})
        assert read_page(query, now=timezone.now()).pks == pks


def test_a_run_with_an_earlier_time_and_a_later_key_is_new_to_an_open_list() -> None:
    def run(seconds: int, model: str = "m") -> Run:
        return Run.objects.create(
            agent="incident",
            model=model,
            config="{}",
            started_by="ada",
            created_at=NOW + timedelta(seconds=seconds),
        )

    run(5), run(3)
    known = newest_runs()
    assert count_newer(RunQuery(), known) == 0
    run(4)
    assert count_newer(RunQuery(), known) == 1
    for n in range(120):
        run(6 + n, model="rare" if n > 110 else "m")
    assert count_newer(RunQuery("model:rare"), known) == 9
    assert count_newer(RunQuery(), known) == 100
