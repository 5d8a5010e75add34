"""Text as the tokens that are searched: the same for what is stored and for what is looked for. Pure.

Letters are folded, marks dropped. `PoolTimeoutError` is three tokens and its whole; scripts without spaces
between words are one token per character, so that any part of a sentence can be found as a phrase.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

LONGEST = 64  # characters of a token; the rest is cut, also of what is looked for
SEPARATOR = "="  # stands between parts of a document: no phrase reaches over it

# Chinese, Japanese, Korean, Thai, Lao, Burmese, Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_ASCII_TOKEN = re.compile(r"[a-z0-9]+")
# Without looking back, and without trying each word from each of its letters: they go over every text.
_WORD = re.compile(r"[A-Za-z0-9]+")
_HUMPED = re.compile(r"[a-z0-9][A-Z]")
_HUMP = re.compile(r"([a-z0-9](?=[A-Z])|[A-Z](?=[A-Z][a-z]))")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_FACT = re.compile(r"[^a-z0-9_.\-]")


def tokens(text: str) -> list[str]:
    """The tokens of a text in order; camel case is taken apart."""
    return _split(_HUMP.sub(r"\1 ", text))


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


def spoken(json_text: str) -> str:
    """JSON text with its escapes resolved, cheaply: enough to be searched."""
    return _ESCAPE.sub(_resolved, json_text) if "\\" in json_text else json_text


def positions(found: Iterable[str]) -> dict[str, list[int]]:
    """Each token with its places, counted from one."""
    places: dict[str, list[int]] = {}
    for place, token in enumerate(found, start=1):
        places.setdefault(token, []).append(place)
    return places


def _split(text: str) -> list[str]:
    if text.isascii():
        return [token[:LONGEST] for token in _ASCII_TOKEN.findall(text.lower())]
    apart = unicodedata.normalize("NFKD", text)
    bare = apart.translate(_marks())
    folded = unicodedata.normalize("NFC", bare).casefold()
    return [token[:LONGEST] for token in _TOKEN.findall(folded)]


@cache
def _marks() -> dict[int, None]:
    """Marks that stand on or under letters, to be dropped."""
    return {code: None for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)) == "Mn"}


def _resolved(found: re.Match[str]) -> str:
    if found[1] is None:
        return " "
    character = chr(int(found[1], 16))
    return character if not 0xD800 <= ord(character) <= 0xDFFF else " "
