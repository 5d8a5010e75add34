"""Text as the tokens that are searched: the same for what is stored and for what is looked for. Pure.

Letters are folded: case, accents, width and characters without a shape make no difference. `PoolTimeoutError`
is three tokens and its whole; scripts without spaces between words are one token per character, so that any
part of a sentence can be found as a phrase. What was found in folded text is traced back to the original.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

LONGEST = 64  # characters of a token; the rest is cut, also of what is looked for
SEPARATOR = "="  # stands between parts of a document: no phrase reaches over it

# Chinese, Japanese, Korean, Thai, Lao, Burmese, Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORDLY = rf"[^\W_{_UNSPACED}]"  # a character of a word that has spaces around it
_TOKEN = re.compile(rf"[{_UNSPACED}]|{_WORDLY}+")
_UNSPACED_ONE = re.compile(rf"[{_UNSPACED}]")
_ASCII_TOKEN = re.compile(r"[a-z0-9]+")
# Without looking back, and without trying each word from each of its letters: they go over every text.
_WORD = re.compile(r"[A-Za-z0-9]+")
_HUMPED = re.compile(r"[a-z0-9][A-Z]")
_HUMP = re.compile(r"([a-z0-9](?=[A-Z])|[A-Z](?=[A-Z][a-z]))")
HUMP = "\x1f"  # what stands between the parts of a word in camel case once it is parted
_ESCAPE = re.compile(r'((?:\\u[0-9a-fA-F]{4})+)|\\(["\\/bfnrt])')
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_SHAPELESS = ("Mn", "Cf")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")  # apart: one of them in a class makes all of it slow
_BLOCK = 1_000  # characters that are folded at once when a place is traced back
_FACT = re.compile(r"[^a-z0-9_.\-]")


def tokens(text: str) -> list[str]:
    """The tokens of a text in order; camel case is taken apart."""
    return _split(parted(text))


def parted(text: str) -> str:
    """The text with HUMP between the parts of words in camel case."""
    return _HUMP.sub(rf"\1{HUMP}", text)


def fold(text: str) -> str:
    """The text without case, accents, differences of width, and characters that have no shape."""
    if text.isascii():
        return text.lower()
    bare = _dropped().sub("", unicodedata.normalize("NFKD", text))
    bare = _ASTRAL.sub(lambda one: "" if unicodedata.category(one[0]) in _SHAPELESS else one[0], bare)
    return unicodedata.normalize("NFC", bare).casefold()


def sources(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The stretches of a text that these stretches of its folded form come from; both in order."""
    if text.isascii():
        return list(spans)
    return [(_source(text, start)[0], _source(text, end - 1)[1]) for start, end in spans]


def expression(phrase: Sequence[str], *, begins: bool = False) -> str:
    """A regular expression that finds these tokens in folded and parted text, where the index finds them.

    With `begins` the last token may be the beginning of a longer one.
    """
    found = ""
    for number, token in enumerate(phrase):
        spaced = not _UNSPACED_ONE.match(token)
        if number:
            found += r"[\W_]+" if spaced and not _UNSPACED_ONE.match(phrase[number - 1]) else r"[\W_]*"
        elif spaced:
            found += f"(?<!{_WORDLY})"
        found += f"{HUMP}?".join(map(re.escape, token)) if token.isascii() else re.escape(token)
        is_last = number == len(phrase) - 1
        if spaced and ((is_last and begins) or len(token) == LONGEST):
            found += f"(?:{_WORDLY}|{HUMP}(?={_WORDLY}))*"
        elif spaced and is_last:
            found += f"(?!{_WORDLY})"
    return found


def wholes(text: str) -> list[str]:
    """Words in camel case, each as one token: so that they are found also when typed in small letters."""
    words = {word for word in _WORD.findall(text) if not word.islower()}
    return sorted({word.lower()[:LONGEST] for word in words if _HUMPED.search(word)})


def document(texts: Iterable[str], facts: Iterable[str]) -> list[str]:
    """What is stored of some texts and facts."""
    found: list[str] = []
    whole: set[str] = set()
    for text in texts:
        if text:
            found += tokens(text)
            found.append(SEPARATOR)
            whole.update(wholes(text))
    return [*found, *sorted(whole), *facts]


def fact(name: str, value: str) -> str:
    """A token that no text contains, such as tool=search_logs."""
    return f"{name}={_FACT.sub('_', value.casefold())[:LONGEST]}"


def spoken(text: str, begins: str | None = None) -> str:
    """JSON text, or a part of one that `begins` so, with its escapes resolved; other text stays as it is."""
    if "\\" not in text or (text if begins is None else begins).lstrip()[:1] not in {"{", "[", '"'}:
        return text
    return _ESCAPE.sub(_resolved, text)


def positions(found: Iterable[str]) -> dict[str, list[int]]:
    """Each token with its places, counted from one."""
    places: dict[str, list[int]] = {}
    for place, token in enumerate(found, start=1):
        places.setdefault(token, []).append(place)
    return places


def _split(text: str) -> list[str]:
    pattern = _ASCII_TOKEN if text.isascii() else _TOKEN
    return [token[:LONGEST] for token in pattern.findall(fold(text))]


def _source(text: str, place: int) -> tuple[int, int]:
    """Begin and end of the characters of a text that the folded one at this place comes from."""
    at = 0
    for size in (_BLOCK, 1):  # the block first, then the characters that belong together
        for found in _together(size).finditer(text, at):
            length = len(fold(found.group()))
            if place < length:
                at = found.start()
                if size == 1:
                    return at, found.end()
                break
            place -= length
        else:
            return len(text), len(text)
    raise AssertionError("a block has characters")


@cache
def _together(size: int) -> re.Pattern[str]:
    """So many characters, with those behind them that may become one with the last of them."""
    compatible = map(chr, (*range(0x3131, 0x318F), *range(0xFFA0, 0xFFDD)))
    hangul = "".join(one for one in compatible if "\u1160" <= unicodedata.normalize("NFKD", one) <= "\u11ff")
    joined = f"{_class('Mn', 'Mc', 'Me', 'Cf')}\u1160-\u11ff\ud7b0-\ud7ff{hangul}\U000e0000-\U000e01ef"
    return re.compile(rf".{{1,{size}}}[{joined}]*", re.DOTALL)


@cache
def _dropped() -> re.Pattern[str]:
    """Marks on or under letters, and characters without a shape, such as joiners and directions."""
    return re.compile(rf"[{_class(*_SHAPELESS)}\u115f\u1160]+")


def _class(*categories: str) -> str:
    """Characters of these categories, for a class of a regular expression."""
    return "".join(
        chr(code) for code in range(0xA0, 0x10000) if unicodedata.category(chr(code)) in categories
    )


def _resolved(found: re.Match[str]) -> str:
    units, short = found.groups()
    if units:
        return bytes.fromhex(units.replace("\\u", "")).decode("utf-16-be", "surrogatepass")
    return _SHORT.get(short, short)
