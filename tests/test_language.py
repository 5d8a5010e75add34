"""The language of the search box: what it takes, what it refuses in words, that nothing breaks it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runs.reading.language import (
    CHOICES,
    FIELDS,
    NUMBERS,
    TIMES,
    Query,
    QueryError,
    Term,
    comparison,
    moment,
    parse,
)

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


def test_words_phrases_fields_and_their_negation() -> None:
    query = parse('pool "connection reset" -status:failed,stopped cost:>0.5 -debug tool:"a, b"')
    assert query.terms == (
        Term("", ("pool",)),
        Term("", ("connection reset",), phrase=True),
        Term("status", ("failed", "stopped"), negated=True),
        Term("cost", (">0.5",)),
        Term("", ("debug",), negated=True),
        Term("tool", ("a, b",), phrase=True),
    )


def test_what_looks_like_an_address_or_a_clock_is_text() -> None:
    assert parse("http://api:8080/x 10:30 v2.14.0").terms == (
        Term("", ("http://api:8080/x",)), Term("", ("10:30",)), Term("", ("v2.14.0",)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('say "hello', "A quotation mark is missing"),
        ("stauts:failed", "There is no field stauts:. Did you mean status:?"),
        ("zzz:1", "There are status:, agent:"),
        ("status:faild", "Did you mean failed?"),
        ("status:", "Say what status: should be, such as status:failed."),
        ("cost:much", "cost: needs a number, such as cost:>0.5"),
        ("cost:>", "cost: needs a number"),
        ("tokens:1,2", "Give tokens: one value"),
        ("after:2026-13-01", "2026-13-01 is no time. Write a date such as 2026-11-20"),
        ("%%%", "%%% has no letter or digit"),
        ("-", "- has no letter or digit"),
        ("x" * 501, "at most 500 are taken"),
        ("x " * 21, "at most 20 are taken"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(text: str, sentence: str) -> None:
    with pytest.raises(QueryError) as refused:
        parse(text)
    assert sentence in str(refused.value)


def test_an_error_says_where_it_is() -> None:
    with pytest.raises(QueryError) as refused:
        parse("pool status:faild")
    assert refused.value.at == 5


@pytest.mark.parametrize(
    ("name", "value", "sign", "number"),
    [
        ("cost", ">0.5", ">", "0.5"),
        ("cost", "$2", ">=", "2"),
        ("tokens", "<=100k", "<=", "100000"),
        ("tokens", "1.5M", ">=", "1500000"),
        ("duration", ">10m", ">", "600"),
        ("duration", "<1.5h", "<", "5400"),
        ("steps", "=12", "=", "12"),
    ],
)
def test_numbers_with_signs_and_units(name: str, value: str, sign: str, number: str) -> None:
    found = comparison(name, value)
    assert (found.sign, found.number) == (sign, Decimal(number))


def test_times_are_dates_clocks_and_ages() -> None:
    assert moment("2d", NOW) == NOW - timedelta(days=2)
    assert moment("2026-11-20", NOW) == datetime(2026, 11, 20, tzinfo=UTC)
    assert moment("2026-11-20T07:30", NOW) == datetime(2026, 11, 20, 7, 30, tzinfo=UTC)
    assert moment("yesterday", NOW) == datetime(2026, 11, 21, tzinfo=UTC)


@given(st.text(max_size=80) | st.text(alphabet='ab-:",<>=0. status', max_size=60))
@example("-:")
@example('"')
@example("after:999999w")
@example("cost:>１")
def test_no_text_breaks_it_and_what_it_understands_survives_a_round_trip(text: str) -> None:
    try:
        query = parse(text)
    except QueryError as error:
        assert str(error)
        return
    assert parse(str(query)) == query


VALUES = {name: st.sampled_from(choices) for name, choices in CHOICES.items()}
VALUES |= {name: st.sampled_from([">1", "<=2", "3", "=4"]) for name in NUMBERS}
VALUES |= {name: st.sampled_from(["2d", "today", "2026-11-20"]) for name in TIMES}
VALUES["charged"] = st.sampled_from(["2d", "today..", "..2026-11-20", "2026-11-01..2026-11-08T07:30"])


@given(st.lists(st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: st.tuples(st.just(name), VALUES.get(name, st.from_regex(r"[a-z_*]{1,9}", fullmatch=True)),
                           st.booleans())), max_size=8))  # fmt: skip
def test_every_query_of_known_fields_is_understood_as_it_was_meant(
    terms: list[tuple[str, str, bool]],
) -> None:
    wanted = Query(tuple(Term(name, (value,), negated) for name, value, negated in terms))
    assert parse(str(wanted)) == wanted


def test_a_facet_replaces_the_value_of_its_field() -> None:
    query = parse("pool status:failed,stopped cost:>1")
    assert str(query.with_value("status", "waiting")) == "pool cost:>1 status:waiting"
    assert str(query.without("status")) == "pool cost:>1"
    assert query.of("status") == ("failed", "stopped")
    minus = parse("-status:succeeded status:failed")
    assert str(minus.with_value("status", "waiting")) == "-status:succeeded status:waiting"
    assert str(minus.without("status")) == "-status:succeeded"
    assert str(parse("").with_value("user", "Ada L.")) == 'user:"Ada L."'
