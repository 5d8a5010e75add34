"""Words are found, and marked where they are, however they are written: case, accents, width, escapes."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import example, given
from hypothesis import strategies as st

from runs import fulltext, tokens
from runs.actions.change import change
from runs.actions.indexing import Indexer
from runs.models import Run, Step
from runs.reading import find_in_run as finding
from runs.reading.completion import complete
from runs.reading.excerpts import excerpt, pattern
from runs.reading.find_in_run import find_in_run
from tests.factories import a_lease, a_run, a_turn

UNITS = [*"aZé\u0301ßﬁＡÅ各각ﾊﾟ\u200d\u00ad İς.\n\x1f_9𠮷🙂\U000e0101ो", "\u1100\u1161", "\u1112\u1161\u11ab"]
TEXTS = st.lists(st.sampled_from(UNITS), max_size=24).map("".join)


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def a_call(arguments: Any, result: Any = None, *, ascii_only: bool = True) -> Run:
    """A run with one call that is over; its JSON as the model wrote it, with or without escapes."""
    run = a_run("What is this?")
    (call,) = a_turn(a_lease(run), ("search_logs", "read", {"query": "q"}))
    with change(run.pk, actor="worker-1") as current:
        Step.objects.filter(pk=call.pk).update(
            status="succeeded",
            arguments=json.dumps(arguments, ensure_ascii=ascii_only),
            result="" if result is None else json.dumps(result, ensure_ascii=ascii_only),
        )
        current.event("call.finished", step=call.seq)
    return run


def marked(page: Client, address: str, **parameters: str) -> list[str]:
    text = page.get(address, parameters).content.decode()
    return [html.unescape(mark) for mark in re.findall("<mark>(.*?)</mark>", text, re.S)]


# ----------------------------------------------------------------- folding, and the way back


@given(TEXTS, st.integers(0, 30), st.integers(1, 6))
@example("各A\u0301\u200d𠮷ß", 0, 1)
def test_a_place_in_folded_text_leads_to_the_letters_it_comes_from(
    text: str, start: int, length: int
) -> None:
    folded = tokens.fold(text)
    span = (start, min(start + length, len(folded)))
    if span[0] >= span[1]:
        return
    ((begins, ends),) = tokens.sources(text, [span])
    assert folded[slice(*span)] in tokens.fold(text[begins:ends])
    assert len(tokens.fold(text[:begins])) <= span[0]


@given(TEXTS)
def test_folding_is_what_the_forms_of_unicode_say(text: str) -> None:
    """An independent way: each form of the same text folds alike, and twice is once."""
    folded = tokens.fold(text)
    assert {tokens.fold(unicodedata.normalize(form, text)) for form in ("NFC", "NFD", "NFKC", "NFKD")} == {
        folded
    }
    assert tokens.fold(text.replace("\u200d", "").replace("\u00ad", "")) == folded


@given(TEXTS, st.integers(0, 40))
def test_what_the_index_finds_is_marked(text: str, start: int) -> None:
    phrase = tokens.tokens(text[start : start + 3])
    stored = tokens.tokens(text)
    held = any(stored[at : at + len(phrase)] == phrase for at in range(len(stored)))
    pieces = excerpt(text, pattern([fulltext.Phrase(tuple(phrase))])) if phrase else None
    if held and phrase:
        assert pieces is not None
        marks = [tokens.tokens(piece.text) for piece in pieces if piece.marked]
        assert any(mark[: len(phrase)] == phrase for mark in marks), (phrase, pieces)
    assert pieces is None or "".join(piece.text for piece in pieces) == text.replace("\x1f", " ")


@pytest.mark.parametrize(
    "text,query,mark",
    [
        ("the HTTPServer died", "server", "Server"),
        ("the HTTPServer died", "httpserver", "HTTPServer"),
        ("a PoolTimeoutError", "pool", "Pool"),
        ("онлайн или он", "он", "он"),
        ("pool接続", "pool", "pool"),
        ("Die Straße", "strasse", "Straße"),
        ("x" * 70 + "y", "x" * 70 + "z", "x" * 70 + "y"),  # the index keeps 64 letters of a word
    ],
)
def test_marks_begin_and_end_where_words_do(text: str, query: str, mark: str) -> None:
    pieces = excerpt(text, pattern([fulltext.Phrase(tuple(tokens.tokens(query)))]))
    assert pieces is not None
    assert [piece.text for piece in pieces if piece.marked] == [mark]


# ------------------------------------------------------------------------- search of the list

SAID = "Ünïcode: kết nối bị đóng, l'e\u0301cole est fermée, ＡＢＣ，𠮷野家 می\u200cخواهم"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query,mark",
    [
        ("Ünïcode", "Ünïcode"), ("unicode", "Ünïcode"), ("UNI\u0308CODE", "Ünïcode"), ("kết", "kết"),
        ("ket", "kết"), ("ecole", "e\u0301cole"), ("école", "e\u0301cole"), ("fermee", "fermée"),
        ("abc", "ＡＢＣ"), ("𠮷野", "𠮷野"), ("میخواهم", "می\u200cخواهم"), ("می\u200cخواهم", "می\u200cخواهم"),
        ("uni\u200bcode", "Ünïcode"), ("\x1b[31municode\x1b[0m", "Ünïcode"), ("uni\u00adcode", "Ünïcode"),
        ('"bị\u2028đóng"', "bị đóng"),
    ],
)  # fmt: skip
def test_accented_hits_are_marked_where_they_are(page: Client, query: str, mark: str) -> None:
    a_call({"query": f"{'so ' * 40}{SAID}"})
    Indexer().follow()
    assert [one.replace("\\u200c", "\u200c") for one in marked(page, "/", q=query)] == [mark]


@pytest.mark.django_db
def test_a_word_at_the_end_of_a_long_result_is_marked(page: Client) -> None:
    a_call({"query": "q"}, {"log": "line " * 6_000 + "le nœud brûlé"})
    Indexer().follow()
    assert marked(page, "/", q="brule") == ["brûlé"]


# -------------------------------------------------------------------------------- find in run

NOTE = {
    "note": 'He said "stop", then C:\\temp\\new\nnext line\tend of 数据库 🙂',
    "amount": 107505301260286111,
    "ratio": 1.10,
    "ключ": "значение",
}


@pytest.mark.django_db
@pytest.mark.parametrize("ascii_only", [True, False])
def test_decoded_text_is_found_in_a_run(page: Client, ascii_only: bool) -> None:
    run = a_call(NOTE, {"text": "Der Prüfer schließt", "odd": '{"in": "\\u00e9"}'}, ascii_only=ascii_only)
    expected = {
        "数据库": "数据库", '"stop"': '"stop"', "C:\\temp\\new": "C:\\temp\\new", "new next": "new\nnext",
        "LINE END": "line\tend", "107505301260286111": "107505301260286111", "🙂": "🙂", "КЛЮЧ": "ключ",
        "amount: 1075": 'amount": 1075', "prufer schliesst": "Prüfer schließt", "ＳＴＯＰ": "stop",
        "pru\u200bfer": "Prüfer", '{"in"': '{"in"',
    }  # fmt: skip
    address = f"{run.get_absolute_url()}find"
    assert {words: marked(page, address, find=words) for words in expected} == {
        words: [mark] for words, mark in expected.items()
    }
    for nothing in ("\\u6570", "\u0301", "stopp"):
        assert marked(page, address, find=nothing) == [], nothing


@pytest.mark.django_db
def test_text_that_is_no_json_keeps_its_backslashes() -> None:
    run = a_call({"query": "q"})
    Step.objects.filter(run=run, kind="tool").update(result="Not found: C:\\new\\u0041")
    assert [hit.match for hit in find_in_run(run, "c:\\new\\u0041").hits] == ["C:\\new\\u0041"]


@pytest.mark.django_db
def test_long_texts_are_searched_in_bounded_parts(monkeypatch: pytest.MonkeyPatch, page: Client) -> None:
    run = a_call({"query": "q"}, {"text": "é" * 30_000 + "first" + "x" * 30_000 + "second"})
    monkeypatch.setattr(finding, "MOST_OF_ONE", 210_000)
    assert [hit.seq for hit in find_in_run(run, "first").hits] == [2]
    assert find_in_run(run, "second").hits == ()
    monkeypatch.setattr(finding, "MOST_AT_ONCE", 10)
    first = find_in_run(run, "second")
    assert (first.hits, first.more_after) == ((), 1)
    text = page.get(f"{run.get_absolute_url()}find", {"find": "first"}).content.decode()
    assert "No step up to 1 holds" in text and "after=1" in text
    assert [hit.seq for hit in find_in_run(run, "first", after=1).hits] == [2]


# ---------------------------------------------------------------------------------- neighbours


@pytest.mark.django_db
def test_names_are_completed_without_their_accents(operator: User) -> None:
    User.objects.create(username="Zoë")
    assert [suggestion.insert for suggestion in complete("user:zo")] == ["user:Zoë"]
    assert [suggestion.insert for suggestion in complete("user:zoë")] == ["user:Zoë"]
