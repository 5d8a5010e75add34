"""A tool cannot hurt the loop: whatever it does, the answer is in time, bounded, clean and valid JSON."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toolbox import KEYS, call
from tools import boundary
from tools.base import Outcome, Result, Tool, ToolContext, ToolError, tool
from tools.bounding import HARD_LIMIT, Tidier, dumps, fit, middle_cut
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
    """Holds hanging tools until the test is over, then lets their threads end."""
    event = threading.Event()
    yield event
    event.set()


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
    failure = ToolError("rate_limited", "Wait.", retryable=True, retry_after_s=5, data={"services": ["api"]})
    envelope = json.loads(run(raises(failure)).text)
    assert list(envelope) == KEYS
    assert envelope["status"] == "error"
    assert envelope["evidence_id"] == "ev_07"
    assert envelope["summary"] == "Wait."
    assert envelope["data"] == {"services": ["api"]}
    assert envelope["error"] == {
        "kind": "rate_limited",
        "retryable": True,
        "retry_after_s": 5,
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
    cut, removed = fit(tidy, room)
    assert len(dumps(cut)) <= room
    assert removed == 0 or len(dumps(Tidier().value({"data": data}))) > room


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
