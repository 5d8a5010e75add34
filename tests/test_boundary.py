"""A tool cannot hurt the loop: whatever it does, the answer is in time, bounded, clean and valid JSON."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toolbox import KEYS, call
from tools import boundary, redaction, threads
from tools.base import Outcome, Result, Tool, ToolContext, ToolError, tool
from tools.bounding import HARD_LIMIT, READ_CHARACTERS, Tidier, dumps, excerpt, fit, middle_cut
from tools.redaction import clean, redact, visible

CONTEXT = ToolContext("production", "nowhere", "key", "ev_07")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=40,
)


def a_tool(does: Callable[[], Any], **options: Any) -> Tool:
    def probe(context: ToolContext) -> Any:
        """A probe."""
        return does()

    return tool(**({"effect": "read", "describe": lambda arguments: "probe"} | options))(probe)


def raises(error: BaseException) -> Callable[[], Any]:
    def work() -> Any:
        raise error

    return work


def run(does: Callable[[], Any], **options: Any) -> Outcome:
    return boundary.call(a_tool(does, **options), {}, CONTEXT)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds hanging tools until the test is over, then lets their threads end and waits for that."""
    event = threading.Event()
    yield event
    event.set()
    threads.end(10)


def test_it_returns_at_the_deadline_while_the_tool_hangs(gate: threading.Event) -> None:
    outcome = run(lambda: gate.wait(60), deadline_seconds=0.05)
    assert outcome.is_error
    assert outcome.error_kind == "timeout"
    error = json.loads(outcome.text)["error"]
    assert error["retryable"] is True
    assert "0.05 s" in error["message"]


def test_it_does_not_call_a_hanging_change_safe_to_repeat(gate: threading.Event) -> None:
    for effect in ("write", "destructive"):
        outcome = run(lambda: gate.wait(60), deadline_seconds=0.05, effect=effect, dry_run=lambda context: {})
        error = json.loads(outcome.text)["error"]
        assert error["retryable"] is False
        assert "may or may not have taken effect" in error["message"]


def test_it_stops_starting_a_tool_that_only_ever_hangs(gate: threading.Event) -> None:
    hanging = a_tool(lambda: gate.wait(60), deadline_seconds=0.01)
    kinds = [boundary.call(hanging, {}, CONTEXT).error_kind for _ in range(boundary.MOST_ABANDONED + 1)]
    assert set(kinds[:-1]) == {"timeout"}
    assert kinds[-1] == "unavailable"


@pytest.mark.parametrize(
    "error", [ValueError("secret detail"), KeyError("x"), RecursionError(), SystemExit(1), MemoryError()]
)
def test_it_turns_any_exception_into_an_answer_without_its_details(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = run(raises(error))
    assert outcome.error_kind == "internal"
    assert "secret detail" not in outcome.text
    assert "Traceback" not in outcome.text
    assert caplog.records  # the operator finds it in the log


def test_it_passes_on_what_a_tool_says_about_its_own_failure() -> None:
    failure = ToolError("rate_limited", "Wait.", retryable=True, retry_after_s=50, data={"services": ["api"]})
    envelope = json.loads(run(raises(failure)).text)
    assert list(envelope) == KEYS
    assert envelope["status"] == "error"
    assert envelope["evidence_id"] == "ev_07"
    assert envelope["summary"] == "Wait."
    assert envelope["data"] == {"services": ["api"]}
    assert envelope["error"] == {
        "kind": "rate_limited",
        "retryable": True,
        "retry_after_s": 50,
        "message": "Wait.",
    }


@pytest.mark.parametrize("garbage", [None, "text", 7, b"\xff", object(), {"status": "ok"}, [1]])
def test_it_answers_for_a_tool_that_returns_garbage(garbage: Any) -> None:
    assert run(lambda: garbage).error_kind == "bad_response"


def test_it_answers_for_a_result_that_json_cannot_hold() -> None:
    assert run(lambda: Result("x", {"a": object()})).error_kind == "bad_response"
    cycle: dict[str, Any] = {}
    cycle["again"] = cycle
    assert run(lambda: Result("x", cycle)).is_error is False


def test_it_bounds_a_flood() -> None:
    flood = Result("Much.", {"lines": [{"message": "x" * 900, "n": n} for n in range(50_000)]})
    outcome = run(lambda: flood)
    assert len(outcome.text) <= 8_000
    envelope = json.loads(outcome.text)
    assert envelope["truncation"]["truncated"] is True
    assert envelope["data"]["lines"][0]["n"] == 0
    assert "chars]" in envelope["data"]["lines"][0]["message"]
    assert any("cut to 8,000 characters" in line for line in envelope["warnings"])


def test_it_has_a_hard_limit_above_every_wish() -> None:
    flood = Result("Much.", {"lines": ["y" * 400] * 5_000})
    assert len(run(lambda: flood, output_limit=10**9).text) <= HARD_LIMIT


def test_it_bounds_one_huge_text_and_one_huge_number() -> None:
    huge = Result("s" * 10_000, {"text": "z" * 5_000_000, "number": 10**5_000, "key" * 900: 1})
    text = run(lambda: huge).text
    assert len(text) <= 8_000
    json.loads(text)


class CountedList(list[Any]):
    """A list that knows how many of its items were looked at."""

    seen = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.seen += 1
            yield item


COSTLY = {
    "words": "word " * 20_000,
    "one word": "x" * 100_000,
    "hex": "0123456789abcdef-" * 6_000,
    "digits": "444444444444444444444444444a " * 3_000,
    "tokens": "eyJaaaaaaaa-" * 8_000,
    "names": "a-" * 50_000,
    "addresses": "a://a:" * 16_000,
}


@pytest.mark.parametrize("line", COSTLY.values(), ids=list(COSTLY))
def test_it_looks_at_no_more_than_could_ever_fit(line: str) -> None:
    lines = CountedList([line] * 500)
    outcome = run(lambda: Result("Much.", {"lines": lines, "newest": "07:00", "rest_count": 3}))
    assert len(outcome.text) <= 8_000
    envelope = json.loads(outcome.text)
    assert lines.seen <= 50  # of 500
    assert len(envelope["data"]["lines"]) >= 10
    assert all(shown.startswith(line[:100]) for shown in envelope["data"]["lines"])
    assert envelope["data"]["newest"] == "07:00"  # what comes after a flood is still seen
    assert envelope["data"]["rest_count"] == 3
    assert any("only its beginning was read" in warning for warning in envelope["warnings"])


def test_it_keeps_the_beginning_of_many_small_lists() -> None:
    data = json.loads(run(lambda: Result("Rows.", {"rows": [[n, 2 * n] for n in range(1_600)]})).text)["data"]
    assert len(data["rows"]) > 500
    assert data["rows"] == [[n, 2 * n] for n in range(len(data["rows"]))]


def test_it_shares_the_room_so_that_small_facts_survive_large_ones() -> None:
    data = {"notes": ["n" * 400] * 60, "count": 7, "services": {str(n): ["s" * 300] * 9 for n in range(5)}}
    kept = fit(data, 4_000)
    assert len(dumps(kept)) <= 4_000
    assert kept["count"] == 7
    assert len(kept["notes"]) >= 3
    assert list(kept["services"]) == ["0", "1", "2", "3", "4"]


def test_what_it_says_around_the_data_leaves_at_least_half_to_the_data() -> None:
    sentences = tuple("w" * 490 for _ in range(12))
    wordy = Result(
        "x",
        {"lines": ["line " * 20] * 100},
        source={"s": ["y" * 400] * 50},
        asked={"a": "q" * 5_000},
        warnings=sentences,
        hints=sentences,
    )
    outcome = run(lambda: wordy)
    assert len(outcome.text) <= 8_000
    assert len(json.loads(outcome.text)["data"]["lines"]) >= 35


def test_a_long_text_keeps_its_last_lines_and_counts_what_is_missing() -> None:
    report = "Traceback:\n" + "  a frame of the stack\n" * 5_000 + "ValueError: no such column"
    shown = Tidier().text(report)
    assert shown.startswith("Traceback:")
    assert shown.endswith("ValueError: no such column")
    assert len(shown) == 500
    assert f"[+{len(report) - 500:,} chars]" in shown


PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEAabcdefgh\n" * 120 + "-----END RSA PRIVATE KEY-----"
)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(min_value=0, max_value=4_000),
    st.integers(min_value=0, max_value=4_000),
    st.sampled_from([PEM, "eyJ" + "h" * 20 + "." + "MIIE" * 800 + ".sig", "Bearer 1" + "MIIE" * 500]),
    st.sampled_from(["\n", " "]),
)
def test_a_cut_before_masking_hides_no_secret_from_the_masks(
    before: int, after: int, secret: str, gap: str
) -> None:
    text = ("ab " * 2_000)[:before] + gap + secret + gap + ("cd" + gap) * (after // 3)
    read, shorter_by = excerpt(text)
    assert len(read) <= READ_CHARACTERS
    assert shorter_by == len(text) - len(read)
    assert (shorter_by > 0) == (len(text) > READ_CHARACTERS)
    assert "MIIE" not in Tidier().text(text, 2_000)


def test_it_prepares_the_answer_within_the_deadline_too(gate: threading.Event) -> None:
    class Slow(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            gate.wait(3)
            return 1

        def __iter__(self) -> Iterator[str]:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    outcome = run(lambda: Result("x", Slow()), deadline_seconds=0.05)
    assert outcome.error_kind == "timeout"


# Whether a call that failed may have changed something.


class BrokenData(dict[str, Any]):
    """Fails while it is read."""

    def items(self) -> Any:
        raise KeyError("lost")


def changing(does: Callable[[], Any], **options: Any) -> Outcome:
    """Call a tool that changes something and then goes on with `does`."""
    acted = []

    def act_and_go_on() -> Any:
        acted.append(True)
        return does()

    outcome = run(act_and_go_on, effect="write", **options)
    assert acted
    return outcome


@pytest.mark.parametrize(
    ("goes_on", "kind"),
    [
        (raises(ValueError("lost")), "internal"),
        (raises(SystemExit(1)), "internal"),
        (raises(ToolError("internal", "It was not recorded.", may_have_acted=True)), "internal"),
        (raises(ToolError("timeout", "No answer.", data={"a": object()}, may_have_acted=True)), "timeout"),
        (lambda: None, "bad_response"),
        (lambda: Result("Done.", {"a": object()}), "bad_response"),
        (lambda: Result("Done.", source={"a": object()}), "bad_response"),
        (lambda: Result("Done.", {"a": BrokenData()}), "internal"),
    ],
)
def test_a_change_that_ends_badly_may_have_happened(goes_on: Callable[[], Any], kind: str) -> None:
    outcome = changing(goes_on)
    assert (outcome.is_error, outcome.error_kind, outcome.may_have_acted) == (True, kind, True)


def test_a_change_that_hangs_may_have_happened(gate: threading.Event) -> None:
    outcome = changing(lambda: gate.wait(60), deadline_seconds=0.05)
    assert (outcome.error_kind, outcome.may_have_acted) == ("timeout", True)


@pytest.mark.parametrize("kind", ["stale_precondition", "forbidden", "invalid_argument", "unavailable"])
def test_a_refusal_did_not_act(kind: Any) -> None:
    refused = run(raises(ToolError(kind, "No.")), effect="write")
    assert (refused.error_kind, refused.may_have_acted) == (kind, False)
    unreadable = run(raises(ToolError(kind, "No.", data={"a": object()})), effect="write")
    assert (unreadable.error_kind, unreadable.may_have_acted) == (kind, False)
    assert json.loads(unreadable.text)["summary"] == "No."


def test_a_result_leaves_nothing_open() -> None:
    assert changing(lambda: Result("Done.")).may_have_acted is False


def test_a_call_that_never_reached_the_tool_did_not_act(gate: threading.Event) -> None:
    hanging = a_tool(lambda: gate.wait(60), effect="write", deadline_seconds=0.01)
    assert boundary.call(hanging, {"unknown": 1}, CONTEXT).may_have_acted is False
    assert boundary.call(hanging, None, CONTEXT).may_have_acted is False
    outcomes = [boundary.call(hanging, {}, CONTEXT) for _ in range(boundary.MOST_ABANDONED + 1)]
    assert [one.may_have_acted for one in outcomes] == [True] * boundary.MOST_ABANDONED + [False]


@pytest.mark.parametrize(
    "does",
    [raises(ValueError()), raises(ToolError("internal", "x", may_have_acted=True)), lambda: None],
)
def test_reading_never_acts(does: Callable[[], Any]) -> None:
    outcome = run(does)
    assert (outcome.is_error, outcome.may_have_acted) == (True, False)


def test_reading_that_hangs_never_acts(gate: threading.Event) -> None:
    assert run(lambda: gate.wait(60), deadline_seconds=0.05).may_have_acted is False


def test_it_replaces_numbers_that_are_not_finite() -> None:
    envelope = json.loads(run(lambda: Result("x", {"v": [float("nan"), float("inf"), 1.5]})).text)
    assert envelope["data"]["v"] == [None, None, 1.5]
    assert any("not finite" in line for line in envelope["warnings"])


def test_it_checks_arguments_before_anything_runs() -> None:
    ran = []

    def counts(context: ToolContext, *, word: str) -> Result:
        """Count."""
        ran.append(word)
        return Result(word)

    counted = tool(effect="read", describe=lambda arguments: "")(counts)
    envelope = call(counted, wrod="x")
    assert envelope["error"]["kind"] == "invalid_argument"
    assert "Did you mean word?" in envelope["error"]["message"]
    assert "Nothing was run" in envelope["error"]["message"]
    assert ran == []
    assert call(counted, word="hello")["summary"] == "hello"


def test_its_preview_never_raises() -> None:
    def dry(context: ToolContext) -> dict[str, Any]:
        raise ValueError("broken")

    broken = a_tool(lambda: Result(""), effect="destructive", dry_run=dry)
    for arguments in ({}, None, {"x": 1}):
        card = boundary.preview(broken, arguments, CONTEXT)
        assert card["problem"]
        assert card["environment"] == "production"
        assert "ValueError" not in card["problem"]


def test_its_preview_shows_nothing_invisible() -> None:
    def dry(context: ToolContext) -> dict[str, Any]:
        return {"headline": "Revert \u202eapi\u200b\x1b[31m", "chips": [], "problem": "", "unknown": 1}

    card = boundary.preview(a_tool(lambda: Result(""), effect="destructive", dry_run=dry), {}, CONTEXT)
    assert card["headline"] == "Revert api"
    assert "unknown" not in card


def dry_run_of(card: Any) -> Tool:
    def dry(context: ToolContext) -> Any:
        return card

    return a_tool(lambda: Result(""), effect="destructive", dry_run=dry)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from strings(item)


NASTY = "a\ud800b\x00c\x1b[31md\u202ee\u200bf\nAPPROVED\x85\u2028g\U000e0100"


def test_every_text_of_a_card_is_visible_and_one_line() -> None:
    drawn = {
        "headline": NASTY + "h" * 400,
        "object": NASTY,
        "chips": [{"text": NASTY, "tone": "ok"}],
        "changes": [{"title": NASTY, "was": [NASTY], "now": [], "same": []}],
        "effect_if_rejected": NASTY,
    }
    card = boundary.preview(dry_run_of(drawn), {}, CONTEXT)
    assert card["problem"] == ""
    assert card["object"] == card["chips"][0]["text"] == card["changes"][0]["was"][0] == "abcdef APPROVEDg"
    assert len(card["headline"]) == 200
    assert all("\n" not in text and text.isprintable() for text in strings(card))


def test_a_card_never_leaves_out_part_of_a_change() -> None:
    change = {"title": "t", "was": ["w" * 400], "now": ["n" * 400], "same": []}
    for most in (100, 5_000):
        card = boundary.preview(dry_run_of({"headline": "Big", "changes": [change] * most}), {}, CONTEXT)
        assert "more than a card can show" in card["problem"]
        assert card["changes"] == []


def test_a_card_of_wrong_types_keeps_its_places() -> None:
    card = boundary.preview(dry_run_of({"headline": None, "chips": "x", "reversible": 1}), {}, CONTEXT)
    assert (card["headline"], card["chips"], card["reversible"]) == ("probe", [], False)


def test_a_card_names_the_kind_of_its_problem(gate: threading.Event) -> None:
    def stale(context: ToolContext) -> dict[str, Any]:
        raise ToolError("stale_precondition", "It changed.\nLook again.")

    def hangs(context: ToolContext) -> Any:
        gate.wait(60)

    refused = boundary.preview(a_tool(lambda: Result(""), effect="write", dry_run=stale), {}, CONTEXT)
    assert (refused["problem_kind"], refused["problem"]) == ("stale_precondition", "It changed. Look again.")
    slow = a_tool(lambda: Result(""), effect="write", dry_run=hangs, deadline_seconds=0.05)
    late = boundary.preview(slow, {}, CONTEXT)
    assert late["problem_kind"] == "timeout"
    assert "taken effect" not in late["problem"]  # a dry run has none
    assert boundary.preview(dry_run_of({}), {}, CONTEXT)["problem_kind"] == ""


SECRETS = [
    ("postgresql://shop:hunter2secret@db:5432/shop", "hunter2secret"),
    ("Authorization: Bearer abcdefghijklmnop.qrstuv-123", "abcdefghijklmnop"),
    ("key AKIAIOSFODNN7EXAMPLE in use", "AKIAIOSFODNN7EXAMPLE"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJzdWIiOiIxMjM0In0"),
    ("paid with 4111 1111 1111 1111 today", "4111 1111"),
    ("paid with 5500-0000-0000-0004", "5500-0000"),
    ("DB_PASSWORD=swordfish99 started", "swordfish99"),
    ('{"api_key": "k-123456789"}', "k-123456789"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----", "MIIEow"),
    ("calling with sk-ant-" + "a1b2c3d4" * 4, "a1b2c3d4"),
]


PIECES = st.sampled_from(
    [secret for text, _ in SECRETS for secret in (text, text[:10], text[10:], text.upper())]
    + [" ", "=", ":", "-", "/", "@", "4111 1111 1111 1111", "5500-0000-0000-0004", "7", "41 11", "Bearer "]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=6).map("".join))
def test_the_first_look_at_a_text_misses_no_secret(text: str) -> None:
    quick: Counter[str] = Counter()
    thorough: Counter[str] = Counter()
    assert redaction.redact(text, quick) == redaction._masked(text, thorough) or len(text) < 12
    assert quick == thorough or len(text) < 12


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_it_masks_secrets_and_says_so(text: str, secret: str) -> None:
    outcome = run(lambda: Result("One line.", {"lines": [f"before {text} after"]}))
    assert secret not in outcome.text
    envelope = json.loads(outcome.text)
    assert "[redacted:" in envelope["data"]["lines"][0]
    assert any(line.startswith("redactions: 1 ") for line in envelope["warnings"])


def test_it_masks_by_name_and_in_errors_too() -> None:
    outcome = run(lambda: Result("x", {"fields": {"password": "tr0ub4dor", "path": "/x"}}))
    assert json.loads(outcome.text)["data"]["fields"] == {"password": "[redacted:secret]", "path": "/x"}
    failed = run(raises(ToolError("unavailable", "postgresql://u:pa55word@h is down")))
    assert "pa55word" not in failed.text


@pytest.mark.parametrize(
    "text",
    [
        "trace 58d6b83b5a6d14d0 took 30013ms",
        "order 4111111111111112 is not a card",
        "at 1763816341137 the pool was full",
        "upstream http://10.20.3.15:8000/checkout",
        "2026-11-22T07:00:00Z password reset mail sent",
        "tokens used: 4000",
        "token authentication failed for user 7",
    ],
)
def test_it_leaves_ordinary_text_alone(text: str) -> None:
    found: Counter[str] = Counter()
    assert redact(text, found) == text
    assert not found


def test_it_removes_what_cannot_be_seen_or_controls_a_terminal() -> None:
    nasty = "a\x00b\x1b[31mred\x1b[0m\x1b]0;title\x07\u202edcb\u200b\ufeff\ud800\u2028e\r\nf\tg\x7f"
    assert visible(nasty) == "abreddcbe\nf\tg"


@settings(deadline=None)
@given(st.text(max_size=400))
def test_cleaned_text_can_always_be_stored_and_sent(text: str) -> None:
    cleaned = clean(text, Counter())
    cleaned.encode("utf-8")
    assert "\x00" not in cleaned
    assert "\x1b" not in cleaned
    assert clean(cleaned, Counter()) == cleaned


@settings(max_examples=150, deadline=None)
@given(JSON, JSON, st.text(max_size=400), st.lists(st.text(max_size=300), max_size=20))
def test_every_answer_is_valid_json_within_its_limit(
    data: Any, source: Any, summary: str, sentences: list[str]
) -> None:
    result = Result(
        summary,
        data if isinstance(data, dict) else {"value": data},
        source={"source": source},
        warnings=tuple(sentences),
        hints=tuple(sentences),
    )
    outcome = run(lambda: result, output_limit=2_000)
    assert len(outcome.text) <= 2_000
    envelope = json.loads(outcome.text, parse_constant=lambda name: pytest.fail(name))
    assert list(envelope) == KEYS
    assert envelope["status"] == "ok"
    assert envelope["evidence_id"] == "ev_07"
    outcome.text.encode("utf-8")


@settings(max_examples=100, deadline=None)
@given(JSON, st.integers(min_value=2, max_value=500))
def test_data_is_cut_to_any_size(data: Any, room: int) -> None:
    tidy = Tidier().value({"data": data})
    cut = fit(tidy, room)
    assert len(dumps(cut)) <= room
    assert cut == tidy or len(dumps(tidy)) > room


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=3_000), st.integers(min_value=1, max_value=600))
def test_a_cut_in_the_middle_keeps_the_limit(text: str, limit: int) -> None:
    cut = middle_cut(text, limit)
    assert len(cut) <= limit
    assert cut == text or len(text) > limit


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.sampled_from(SECRETS), st.text(max_size=60))
def test_a_secret_is_found_wherever_it_stands(before: str, secret: tuple[str, str], after: str) -> None:
    text, hidden = secret
    assert hidden not in clean(f"{before} {text} {after}", Counter())
