"""Canonical JSON: the numbers that RFC 8785 lists, what has no canonical form, and that it is stable."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools import registry
from tools.boundary import invalid_arguments
from tools.canonical import LARGEST, MAX_DEPTH, NotCanonical, canonical, number_text, problem, read

# Bits of a double and how ECMAScript writes it: the cases of RFC 8785, appendix B, that are numbers.
PUBLISHED = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]
NUMBERS = st.integers(-LARGEST, LARGEST) | st.floats(-1e15, 1e15)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(("bits", "text"), PUBLISHED)
def test_numbers_are_written_as_published(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert number_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_back_as_itself(number: float) -> None:
    assert float(number_text(number)) == number


def test_names_are_sorted_by_utf_16_and_text_is_kept() -> None:
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "ö": 7}
    assert list(json.loads(canonical(value))) == ["\r", "1", "\x80", "ö", "€", "\U0001f600", "\ufb33"]
    assert canonical({"t": 'é€ "\\\n\x0f\x7f</'}) == '{"t":"é€ \\"\\\\\\n\\u000f\x7f</"}'
    assert canonical([56.0, {"d": True, "10": None, "1": []}]) == '[56,{"1":[],"10":null,"d":true}]'


@given(JSON)
def test_a_canonical_text_is_its_own_canonical_form(value: Any) -> None:
    text = canonical(value)
    assert canonical(read(text)) == text
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"replicas": 9007199254740993}', "replicas is a number beyond 9007199254740991"),
        ('{"a": [1, 1e21]}', "a[1] is a number beyond"),
        ('{"a": ' + "9" * 400 + "}", "a is a number beyond"),
        ('{"a": -1e400}', "a is not a finite number"),
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "“c” stands in the same object twice"),
        ('{"a": {"b": "\\ud800"}}', "a.b holds half of a surrogate pair"),
        ('{"\\udc00": 1}', "holds half of a surrogate pair"),
        ("[" * 100_000 + "]" * 100_000, "levels deep"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "levels deep"),
        ('{"a": 1', "This is no JSON (line 1, column"),
        ("", "This is no JSON"),
    ],
)
def test_what_has_no_canonical_form_is_said_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(NotCanonical) as caught:
        read(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith(".")


def test_minus_zero_is_zero_and_whole_numbers_look_alike() -> None:
    assert canonical([-0.0, 1.0, 1e2, LARGEST, -LARGEST]) == f"[0,1,100,{LARGEST},-{LARGEST}]"
    assert canonical([True, 1]) == "[true,1]"
    assert problem({1: 2}) == "The value has a name that is no text."
    assert problem({"a": {1, 2}}) == "a is set, which JSON does not have."
    assert problem({"a": math.inf}) == "a is not a finite number. JSON has none of these."
    assert problem({"a": 2**53 - 1}) == ""


def test_the_model_is_told_before_anybody_is_asked() -> None:
    tool = registry.TOOLS["scale_service"]
    said = invalid_arguments(tool, {"service": "api", "replicas": 2**60})
    assert "replicas is a number beyond 9007199254740991" in said
    said = invalid_arguments(tool, {"service": "\ud800", "replicas": 3})
    assert "service holds half of a surrogate pair" in said
