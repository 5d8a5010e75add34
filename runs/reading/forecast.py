"""What will become of a budget if it goes on like this, with its arithmetic. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from runs.models import Period
from runs.reading import words

# So much of a period has to pass before its rate says anything.
LEAST = {
    Period.DAY: timedelta(hours=1),
    Period.WEEK: timedelta(hours=12),
    Period.MONTH: timedelta(hours=24),
}
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Forecast:
    """A sentence for people, how it was computed, and where the line of the chart ends.

    `used_up_at`: when nothing is left, if that is within the period; `at_end`: what is used by its end.
    Both None: there is no forecast.
    """

    sentence: str
    arithmetic: str = ""
    used_up_at: datetime | None = None
    at_end: Decimal | None = None

    @property
    def is_bad(self) -> bool:
        """Whether it is used up before its period ends."""
        return self.used_up_at is not None


def forecast(
    period: str,
    *,
    since: datetime,
    until: datetime,
    now: datetime,
    used: Decimal,
    limit: Decimal,
    say: Callable[[Decimal], str],
) -> Forecast:
    """At the rate of the elapsed part of the period; `say` puts an amount into words.

    What calls under way may still use does not count: they may use less.
    """
    if used >= limit:
        return Forecast("All of it is used.")
    if not used:
        return Forecast("Nothing was used in this period, so there is no rate yet.")
    elapsed, least = now - since, LEAST[Period(period)]
    if elapsed < least:
        return Forecast(
            f"Too early for a forecast: {_hours(least)} of the period have to pass, {_hours(elapsed)} have."
        )
    hours = _decimal(elapsed)
    rate = used / hours
    left = (limit - used) / rate
    ends_at = now + timedelta(hours=float(left)) if left < 24 * 366 else until
    if ends_at < until:
        sentence = (
            f"At this rate it is used up on {_moment(ends_at)}, {words.span(until - ends_at)} "
            "before the period ends."
        )
        return Forecast(
            sentence,
            f"{say(used)} in {_hours(elapsed)}, so {say(limit - used)} more in {say(limit - used)} × "
            f"{_hours(elapsed)} ÷ {say(used)} = {left:.1f} hours.",
            used_up_at=ends_at,
        )
    at_end = rate * _decimal(until - since)
    share = words.percent(at_end / limit)
    return Forecast(
        f"At this rate the period ends with {say(at_end)} of {say(limit)} used, {share}.",
        f"{say(used)} in {_hours(elapsed)} × {_hours(until - since)} ÷ {_hours(elapsed)} = {say(at_end)}.",
        at_end=at_end,
    )


def _decimal(span: timedelta) -> Decimal:
    """Hours, exact to the microsecond."""
    return Decimal(span // timedelta(microseconds=1)) / Decimal(HOUR // timedelta(microseconds=1))


def _hours(span: timedelta) -> str:
    hours = f"{_decimal(span):.1f}".removesuffix(".0")
    return "1 hour" if hours == "1" else f"{hours} hours"


def _moment(moment: datetime) -> str:
    return f"{moment:%A}, {moment.day} {moment:%b %H:%M} UTC"
