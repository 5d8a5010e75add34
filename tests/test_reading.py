"""What pages are made of: times, numbers, the axis of a trace, charts, folding JSON."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO, StringIO, TextIOWrapper
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import OutputWrapper
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import DjangoAssertNumQueries
from rich.console import Console

from runs import actions
from runs.actions.indexing import Indexer
from runs.management.trace import Trace
from runs.models import Approval, Run, RunStatus, Step
from runs.models.step import newest_part
from runs.reading import words
from runs.reading.export import log_text
from runs.reading.facets import read_facets
from runs.reading.run_page import read_run_page
from runs.reading.runs import Cursor, RunQuery, read_page
from runs.reading.timescale import build_scale
from runs.reading.trace import read_trace
from runs.templatetags.agentops import answer, paragraphs
from runs.templatetags.json_tree import json_tree
from tests.factories import a_lease, a_question, a_run, a_turn, a_waiting_call, an_attempt

START = datetime(2026, 11, 22, 7, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "unpriced"),
        (Decimal(0), "$0"),
        (Decimal("0.00001"), "< $0.0001"),
        (Decimal("0.0001"), "$0.0001"),
        (Decimal("0.14401"), "$0.1440"),
        (Decimal("1234.5"), "$1,234.50"),
    ],
)
def test_money_never_shows_a_missing_price_as_zero(amount: Decimal | None, shown: str) -> None:
    assert words.money(amount) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (999, "999"), (52_000, "52.0k"), (99_949, "99.9k"), (99_950, "100k"), (61_400_000, "61.4M")],
)
def test_token_counts_are_short(count: int, shown: str) -> None:
    assert words.tokens(count) == shown


@pytest.mark.parametrize(
    ("seconds", "length", "clock"),
    [
        (0.4, "400 ms", "0:00"),
        (0.9996, "1.0 s", "0:00"),
        (61.84, "61.8 s", "1:01"),
        (99.96, "1:39", "1:39"),
        (3723, "1:02:03", "1:02:03"),
        (-5, "0 ms", "0:00"),
        (90_061, "1 d 1:01:01", "1 d 1:01:01"),
    ],
)
def test_times_read_as_people_write_them(seconds: float, length: str, clock: str) -> None:
    assert words.duration(seconds) == length
    assert words.clock(seconds) == clock


@given(st.text())
def test_untrusted_text_keeps_its_words_and_loses_its_tricks(text: str) -> None:
    shown = words.plain(text)
    shown.encode("utf-8")
    assert not {unicodedata.category(character) for character in shown} & {"Cs", "Zl", "Zp"}
    assert not {character for character in shown if unicodedata.category(character) == "Cc"} - {"\n", "\t"}
    assert not set(shown) & set("\u061c\u200b\u200d\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\U000e0041")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("approve \u202etxt.exe", "approve \\u202etxt.exe"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ("\x1b[2J\x9b2J\x1b]0;title\x07", "\\u001b[2J\\u009b2J\\u001b]0;title\\u0007"),
        ("done\rFAILED", "done\\u000dFAILED"),
        ("api\u200b\ufeff", "api\\u200b\\ufeff"),
        ("hidden\U000e0041", "hidden\\U000e0041"),
        ("one\r\n\ttwo ✅ ⚠️ é 日本 עברית", "one\n\ttwo ✅ ⚠️ é 日本 עברית"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    assert words.plain(text) == shown


@pytest.mark.django_db
def test_nothing_that_was_written_by_others_reaches_the_terminal_as_a_command(operator: User) -> None:
    trick = "A\x1b]0;title\x07B\x1b[2J\x9b1mC\u202eD\u200bE\r"
    lease = a_lease(a_run("question"))
    Run.objects.update(user_query=f"question {trick}", agent="a\x1b[1m", model="m\x1b[1m")
    (step,) = a_turn(lease, ("revert_deployment", "destructive", {}), text=f"text {trick}\n✓ second")
    Step.objects.filter(kind="model").update(reasoning=f"reasoning {trick}", name=f"model {trick}")
    preview = {"headline": f"headline {trick}"}
    actions.ask_approval(lease, step.seq, a_question({}, preview=preview, environment=f"somewhere {trick}"))
    approval = Approval.objects.get()
    reason = f"reason {trick}\n■ Succeeded."
    actions.decide(
        approval_id=approval.pk, voter=operator, verdict="reject", reason=reason, revision=1,
        digest=approval.digest,
    )  # fmt: skip
    Step.objects.filter(pk=step.pk).update(summary=f"summary {trick}", name=f"tool {trick}")
    actions.add_note(lease, name="hint", text="x", summary=f"note {trick}")
    actions.end_run(
        lease, status=RunStatus.STOPPED, explanation=f"explanation {trick}", final_response=f"answer {trick}"
    )
    output = StringIO()
    Trace(Console(file=output, width=400, color_system=None)).catch_up()
    shown = output.getvalue()
    for said in ("question", "text", "reasoning", "model", "headline", "somewhere", "reason", "summary",
                 "tool", "note", "explanation"):  # fmt: skip
        assert f"{said} A\\u001b]0;title\\u0007B\\u001b[2J\\u009b1mC\\u202eD\\u200bE" in shown, said
    assert not set(shown) & set("\x1b\x07\x9b\r\u202e\u200b")
    assert "\n■ Succeeded." not in shown


@pytest.mark.django_db
def test_a_log_holds_what_utf8_cannot() -> None:
    lease = a_lease(a_run("Wie groß ist der Pool? 日本"))
    a_turn(lease, ("search_logs", "read", {"query": "lone \ud800 surrogate"}), text="größer")
    run = Run.objects.get()
    written = BytesIO()
    with TextIOWrapper(written, encoding="utf-8", write_through=True) as terminal:
        call_command("exportrun", str(run.request_id), stdout=OutputWrapper(terminal))
        text = written.getvalue().decode("ascii")
    assert text == log_text(run) + "\n"
    log = json.loads(text)
    assert log["tool_calls"][0]["args"] == {"query": "lone \ud800 surrogate"}
    assert log["user_query"] == "Wie groß ist der Pool? 日本"


def test_a_line_stays_one_line() -> None:
    assert words.line(" no trouble\r\n✓ approved\n\n") == "no trouble ✓ approved"


def test_a_time_of_another_day_says_which() -> None:
    assert words.day_or_time(at(0), at(60)) == "07:00"
    assert words.day_or_time(at(0), at(17 * 3600)) == "22 Nov 07:00"
    assert words.day_or_time(at(0), at(90 * 86400)) == "22 Nov 2026"


# ----------------------------------------------------------- time scale


def test_the_axis_moves_in_steps_not_with_every_second() -> None:
    widths = {build_scale(START, at(s), [(START, at(s))], live=True).width for s in range(60, 70)}
    assert widths == {75}


def test_a_long_wait_is_cut_at_a_visible_break() -> None:
    scale = build_scale(START, at(1000), [(START, at(40)), (at(940), at(1000))], live=False)
    assert scale.drawn(at(40)) == 40
    assert scale.drawn(at(940)) == 40 + 30
    assert scale.drawn(at(1000)) == 40 + 30 + 60
    (cut,) = scale.breaks
    assert cut.label == "15 min idle"
    # Labels right of the break tell the real time, not the drawn one.
    assert scale.ticks[-1].label == "17:00"


def test_a_break_is_in_proportion_to_the_work() -> None:
    short = build_scale(START, at(400), [(START, at(20)), (at(390), at(400))], live=False)
    long = build_scale(START, at(4000), [(START, at(600)), (at(3900), at(4000))], live=False)
    assert short.kept == 10
    assert long.kept == 120


def test_while_it_waits_the_axis_stands_still() -> None:
    busy = [(START, at(40))]
    early = build_scale(START, at(100), busy, live=True)
    late = build_scale(START, at(800), busy, live=True)
    assert early.width == late.width
    assert early.cap_seconds == late.cap_seconds == 40 + early.kept
    assert early.x(at(100)) == late.x(at(800))


@given(
    st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 300)), max_size=8),
    st.floats(0, 6000),
    st.booleans(),
)
def test_the_axis_never_runs_backwards_and_holds_everything(
    spans: list[tuple[float, float]], extra: float, live: bool
) -> None:
    end = max((a + b for a, b in spans), default=0) + extra
    scale = build_scale(START, at(end), [(at(a), at(a + b)) for a, b in spans], live=live)
    moments = sorted({0.0, end, *(a for a, _ in spans), *(a + b for a, b in spans)})
    places = [scale.drawn(at(moment)) for moment in moments]
    assert places == sorted(places)
    assert places[0] >= 0
    assert places[-1] <= scale.width + 1e-6
    # What was busy is drawn in full length.
    for a, b in spans:
        assert scale.drawn(at(a + b)) - scale.drawn(at(a)) == pytest.approx(b, abs=1e-3)


# ---------------------------------------------------------- folding JSON


def test_json_becomes_nested_details_and_nothing_in_it_becomes_markup() -> None:
    html = json_tree(json.dumps({"<b>key</b>": ["<script>alert(1)</script>", 5, None, True]}))
    assert html.count("<details") == 2
    assert "<script" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    "text", ["{not json", "[" * 100_000, '"\\ud800"', "NaN", "1" * 5000, '{"a": "\\u0000"}']
)
def test_strange_json_is_shown_and_never_breaks_the_page(text: str) -> None:
    json_tree(text).encode("utf-8")


def test_a_huge_tree_is_bounded() -> None:
    html = json_tree(json.dumps({"rows": [{"n": n} for n in range(50_000)]}))
    assert len(html) < 400_000
    assert "more, in the JSON export" in html


def test_arguments_that_came_from_a_tool_result_are_marked() -> None:
    html = json_tree('{"id": "dep_0412", "n": "kept"}', 3, {"dep_0412": "First seen in step 4"})
    assert '<mark class="from-tool" title="First seen in step 4">"dep_0412"</mark>' in html
    assert '<span class="s">"kept"</span>' in html


def test_the_answer_links_its_evidence_and_stays_text() -> None:
    html = answer("It is ev_02 <img src=x>, see ev_99.\n\nSecond.", {"ev_02": "?step=5"})
    assert '<a href="?step=5">ev_02</a>' in html
    assert "ev_99" in html
    assert html.count("<p>") == 2
    assert "<img" not in html


def test_streaming_text_ends_with_a_caret_even_when_it_is_empty() -> None:
    assert paragraphs("", caret=True) == '<p class="caret"></p>'
    assert paragraphs("one\n\ntwo", caret=True) == '<p>one</p><p class="caret">two</p>'


# ------------------------------------------------------------------ list


def test_a_cursor_survives_its_address() -> None:
    cursor = Cursor(START + timedelta(microseconds=123456), 42)
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "1-2-3", "9" * 40 + "-1", "1-" + "9" * 40, "²-1"])
def test_a_mistyped_cursor_is_no_cursor(text: str) -> None:
    assert Cursor.parse(text) is None


@pytest.mark.django_db
def test_pages_by_key_hold_every_run_once_also_at_equal_times() -> None:
    Run.objects.bulk_create(
        Run(agent="incident", model="m", user_query=f"run {n}", config="{}", created_at=at(n // 40))
        for n in range(130)
    )
    query: RunQuery | None = RunQuery()
    seen: list[int] = []
    while query is not None:
        page = read_page(query, now=timezone.now())
        seen += page.pks
        query = page.next
    assert len(seen) == len(set(seen)) == 130
    assert seen == list(Run.objects.order_by("-created_at", "-pk").values_list("pk", flat=True))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "shown", [lambda id: str(id), lambda id: id.hex[:12], lambda id: str(id)[:15].upper()]
)
def test_the_beginning_of_a_request_id_finds_its_run_alone(shown: Callable[[UUID], str]) -> None:
    first, second = (
        a_run(question, request_id=UUID(hex=digits))
        for question, digits in (("one", "8f2c41d0beef" + 20 * "0"), ("two", "8f2c41d0bf00" + 20 * "f"))
    )
    found = [
        read_page(RunQuery(text=shown(run.request_id)), now=timezone.now()).pks for run in (first, second)
    ]
    assert found == [[first.pk], [second.pk]]


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["8", "42", "-", "8f2c41d0beefx", "8" * 40, "ⅷⅷⅷⅷ"])
def test_what_cannot_be_a_request_id_finds_no_run_by_it(text: str) -> None:
    a_run("one", request_id=UUID(hex="8" * 32))
    assert read_page(RunQuery(text=text), now=timezone.now()).pks == []


@pytest.mark.django_db
def test_facets_count_what_a_click_would_show() -> None:
    a_run("first pool")
    a_waiting_call(a_run("second pool"))
    a_run("other")
    Indexer().follow()
    facets = {facet.value: facet for facet in read_facets(RunQuery(text="pool"), now=timezone.now()).statuses}
    assert facets["queued"].count == 1
    assert facets["waiting"].count == 1
    assert facets["waiting"].address == "q=pool+status%3Awaiting"
    chosen = read_facets(RunQuery(text="pool status:waiting"), now=timezone.now()).statuses[0]
    assert chosen.chosen
    assert chosen.address == "q=pool"


# ----------------------------------------------------------------- trace


@pytest.mark.django_db
def test_calls_stand_inside_their_turn_and_ask_for_a_decision(operator: User) -> None:
    _, step, approval = a_waiting_call()
    run = Run.objects.get(pk=step.run_id)
    trace = read_trace(run, viewer=operator, now=timezone.now())
    (turn,) = trace.rows
    (call,) = turn.children
    assert (turn.seq, call.seq) == (1, 2)
    assert call.ask is not None
    assert call.ask.pk == approval.pk
    assert call.ask.headline == "Revert api from v2.14.0 to v2.13.2"
    assert [bar.kind for bar in call.bars] == ["wait"]
    assert trace.current_seq == 2


@pytest.mark.django_db
def test_a_read_does_not_chase_the_reasoning_off_the_panel(operator: User) -> None:
    lease = a_lease(a_run())
    a_turn(lease, ("get_metrics", "read", {}))
    run = Run.objects.get(pk=lease.run_id)
    assert read_trace(run, viewer=operator, now=timezone.now()).current_seq == 1
    an_attempt(lease)
    run.refresh_from_db()
    assert read_trace(run, viewer=operator, now=timezone.now()).current_seq == 3


@pytest.mark.django_db
def test_the_run_page_takes_few_queries_however_long_the_run(
    operator: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    lease = a_lease(a_run())
    for _ in range(15):
        a_turn(lease, ("get_metrics", "read", {}), ("search_logs", "read", {}))
    run = Run.objects.get(pk=lease.run_id)
    assert run.step_count == 45
    with django_assert_max_num_queries(9):
        page = read_run_page(run, selected=None, viewer=operator, now=timezone.now())
        assert len(page.trace.rows) == 15


@given(st.integers(1, 40_000), st.integers(1, 3_000))
def test_what_a_page_shows_of_a_growing_text_begins_in_the_same_place_for_a_while(
    size: int, more: int
) -> None:
    text = "".join(f"{number:05}" for number in range(9_000))[: size + more]
    before, after = newest_part(text[:size], 4_000), newest_part(text, 4_000)
    assert len(after) <= 4_000 and text.endswith(after) and len(after) > min(3_000, len(text) - 1)
    assert (len(text) - len(after)) % 1_000 == 0
    assert size - len(before) <= len(text) - len(after)
    assert newest_part(newest_part(text, 20_000), 4_000) == after, "stored first, then shown"
