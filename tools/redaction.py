"""Untrusted text made safe to keep and to show: no secrets, no invisible or controlling characters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

# Patterns must stay close to linear: text is chosen by whoever writes to a log.

SHORTEST_SECRET = 12  # characters; nothing shorter is masked
_ANSI = re.compile(r"\x1b(?:\[[0-?]{0,32}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)?|[@-Z\\-_])")
# Controls except tab and newline, surrogates, bidi marks and overrides, zero-width, BOM, separators, and
# tags and variation selectors, which can carry whole hidden sentences.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """The text without terminal escapes, control, bidirectional, zero-width and unpaired characters."""
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub("", _ANSI.sub("", text.replace("\r\n", "\n")))


def _luhn(digits: str) -> bool:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if position % 2 else 1)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def _card(match: re.Match[str]) -> str | None:
    digits = re.sub(r"\D", "", match[0])
    return "[redacted:card]" if 13 <= len(digits) <= 19 and len(set(digits)) > 1 and _luhn(digits) else None


def _keeping(name: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{match[1]}[redacted:{name}]{match[2] if match.re.groups > 1 else ''}"


def _whole(name: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"[redacted:{name}]"


_RULES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str | None]], ...] = (
    (
        "private key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.{0,20000}?"
            r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)",
            re.S,
        ),
        _whole("private-key"),
    ),
    (
        "token",
        re.compile(r"\beyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,8000}(?:\.[A-Za-z0-9_-]{0,4000})?"),
        _whole("jwt"),
    ),
    (
        "password",
        re.compile(r"(\b[a-z][a-z0-9+.-]{1,30}://[^\s:/@\"']{0,200}:)[^\s\"'/]{1,400}(@)", re.I),
        _keeping("password"),
    ),
    (
        "token",
        re.compile(
            r"(\b(?:bearer|basic|token)[ \t]{1,4})(?=[A-Za-z._~+/-]{0,200}\d)[A-Za-z0-9._~+/-]{12,4000}=*",
            re.I,
        ),
        _keeping("token"),
    ),
    ("key", re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b"), _whole("aws-key")),
    (
        "key",
        re.compile(
            r"\b(?:sk-ant-[A-Za-z0-9_-]{16,300}|sk-[A-Za-z0-9_-]{24,300}|gh[pousr]_[A-Za-z0-9]{30,255}|xox[abprs]-[A-Za-z0-9-]{10,200})"
        ),
        _whole("key"),
    ),
    (
        "secret",
        re.compile(
            r"((?:password|passwd|pwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token|credential)"
            r"s?[\"']?[ \t]{0,3}[=:][ \t]{0,3}[\"']?)(?!\[redacted)[^\s\"',;&}]{4,400}",
            re.I,
        ),
        _keeping("secret"),
    ),
    (
        "card number",
        re.compile(r"(?<![\w.-])(?:[3-6]\d|2[2-7])\d{0,17}(?:[ -]\d{2,17}){0,5}(?![\w-])"),
        _card,
    ),
)
# Whatever a rule finds holds one of these. Most texts hold none and are looked at once, not eight times.
_SUSPECT = re.compile(
    r"-----BEGIN|eyJ|://|bearer|basic|token|AKIA|ASIA|AROA|AIDA|sk-|gh[pousr]_|xox[abprs]-|password|passwd|pwd"
    r"|secret|key|credential|(?:\d[ -]?){13}",
    re.I,
)
_SECRET_NAMES = re.compile(
    r"(?:^|[_.-])(?:password|passwd|pwd|secret|api_?key|access_?key|secret_?key|auth_?token|authorization|cookie|private_?key)$",
    re.I,
)


def redact(text: str, found: Counter[str]) -> str:
    """The text with secrets replaced by "[redacted:...]"; what was found is counted by kind."""
    if len(text) < SHORTEST_SECRET or not _SUSPECT.search(text):
        return text
    return _masked(text, found)


def _masked(text: str, found: Counter[str]) -> str:
    for name, pattern, mask in _RULES:

        def replace(match: re.Match[str], name: str = name, mask: Callable[..., str | None] = mask) -> str:
            masked = mask(match)
            if masked is None:
                return match[0]
            found[name] += 1
            return masked

        text = pattern.sub(replace, text)
    return text


@lru_cache(maxsize=4_096)  # results have the same names again and again
def is_secret_name(name: str) -> bool:
    """Whether a value under this key is a secret, whatever it looks like."""
    return bool(_SECRET_NAMES.search(name))


def clean(text: str, found: Counter[str]) -> str:
    """Visible and without secrets. The time it takes grows with the text, so cut long text before."""
    return redact(visible(text), found)
