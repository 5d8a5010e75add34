"""Numbers and times as people read them. Pure; the pages and their live updates use the same words."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from decimal import Decimal

MINUTE, HOUR, DAY = 60, 3600, 86400
SMALLEST_SHOWN = Decimal("0.0001")
# Controls, and what Unicode calls ignorable by default: it has no shape, so it could hide or turn words.
# Left out are the two selectors that only choose between an emoji and its outline (FE0E, FE0F).
HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def money(amount: Decimal | None) -> str:
    """USD: four decimals, two from ten dollars on. None is "unpriced", which is not zero."""
    if amount is None:
        return "unpriced"
    if amount == 0:
        return "$0"
    if amount < SMALLEST_SHOWN:
        return "< $0.0001"
    return f"${amount:,.2f}" if amount >= 10 else f"${amount:.4f}"


def unit_price(amount: Decimal | str | None) -> str:
    """USD per million tokens, with at least two decimals and no trailing zeros beyond them."""
    if amount is None or amount == "":
        return ""
    text = f"{Decimal(amount).normalize():f}"
    whole, _, cents = text.partition(".")
    return f"{whole}.{cents.ljust(2, '0')}"


def tokens(count: int) -> str:
    """214, 52.0k, 486k, 61.4M."""
    if count < 1000:
        return str(count)
    if count < 99_950:
        return f"{count / 1000:.1f}k"
    if count < 999_500:
        return f"{count / 1000:.0f}k"
    return f"{count / 1_000_000:.1f}M"


def percent(share: float | Decimal | None) -> str:
    """0.493 is "49 %"; None is a dash."""
    return "–" if share is None else f"{round(100 * float(share))} %"


def seconds_of(value: timedelta | float | int) -> float:
    """Seconds, never below zero: clocks of two processes may disagree a little."""
    return max(0.0, value.total_seconds() if isinstance(value, timedelta) else float(value))


def counted(count: int, word: str) -> str:
    """1 step, 2 steps; give "entry,entries" when the plural is not made with an s."""
    one, _, many = word.partition(",")
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(value: timedelta | float | int | None) -> str:
    """400 ms, 7.4 s, 61.8 s, 12:04, 1:02:03; empty for None."""
    if value is None:
        return ""
    seconds = seconds_of(value)
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    return f"{seconds:.1f} s" if seconds < 99.95 else clock(seconds)


def clock(value: timedelta | float | int | None) -> str:
    """0:38, 12:04, 1:02:03, 2 d 3:04:05."""
    if value is None:
        return ""
    whole = math.floor(seconds_of(value))
    days, rest = divmod(whole, DAY)
    hours, rest = divmod(rest, HOUR)
    minutes, seconds = divmod(rest, MINUTE)
    text = f"{hours}:{minutes:02}:{seconds:02}" if hours or days else f"{minutes}:{seconds:02}"
    return f"{days} d {text}" if days else text


def span(value: timedelta | float | int) -> str:
    """About how long, in one unit: 12 s, 5 min, 3 h, 2 days."""
    seconds = seconds_of(value)
    if seconds < MINUTE:
        return f"{math.floor(seconds)} s"
    if seconds < HOUR:
        return f"{math.floor(seconds / MINUTE)} min"
    if seconds < 2 * DAY:
        return f"{math.floor(seconds / HOUR)} h"
    return f"{math.floor(seconds / DAY)} days"


def ago(moment: datetime, now: datetime) -> str:
    """ "just now", "12 s ago", "5 min ago"."""
    seconds = seconds_of(now - moment)
    return "just now" if seconds < 2 else f"{span(seconds)} ago"


def day_or_time(moment: datetime, now: datetime) -> str:
    """07:00 for a moment of today, 21 Nov 07:00 for one of this year, else 21 Nov 2025; both in UTC."""
    if moment.date() == now.date():
        return f"{moment:%H:%M}"
    return f"{moment.day} {moment:%b %H:%M}" if moment.year == now.year else f"{moment.day} {moment:%b %Y}"


def epoch_ms(moment: datetime) -> int:
    """Milliseconds since 1970, for the clocks in the browser."""
    return math.floor(moment.timestamp() * 1000)


def plain(text: str) -> str:
    """Untrusted text for a page or a terminal: what cannot be seen, or turns or moves text, is spelled out.

    That is every control character but newline and tab, direction marks, characters without a width, tags,
    and lone surrogates. An escape character becomes the six letters \\u001b: seen, and without effect.
    """
    whole = text.replace("\r\n", "\n").encode("utf-8", "backslashreplace").decode("utf-8")
    return HIDDEN.sub(_spelled_out, whole)


def line(text: str) -> str:
    """The same on one line, for places where a line break would start something new."""
    return " ".join(plain(text).split())


def _spelled_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
