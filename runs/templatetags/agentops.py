"""Tags and filters of the pages. A builtin of the template engine: nothing has to be loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django import template
from django.template import Context
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from runs.access import may_start
from runs.actions.approvals import MAX_REASON_CHARACTERS
from runs.models import Run
from runs.reading import words
from runs.reading.labels import read_labels
from runs.reading.runs import RunQuery
from runs.reading.timescale import percent_text
from runs.templatetags.json_tree import json_tree

register = template.Library()

register.filter("tokens", words.tokens)
register.filter("percent", words.percent)
register.filter("unit_price", words.unit_price)
register.filter("duration", words.duration)
register.filter("clock", words.clock)
register.filter("span", words.span)
register.filter("plain", words.plain)
register.filter("plural", words.counted)
register.filter("epoch_ms", words.epoch_ms)
register.simple_tag(json_tree)

SHAPES = {"executing": "running", "pending": "waiting", "superseded": "edit", "revoked": "back"}
WORDS = {"unknown": "Outcome unknown", "superseded": "Replaced"}
EVIDENCE = re.compile(r"\bev_\d+\b")


@register.simple_tag
def icon(name: str) -> SafeString:
    """One symbol of the sprite in base.html; decoration, the word stands beside it."""
    return format_html(
        '<svg class="icon" width="16" height="16" aria-hidden="true"><use href="#i-{}"/></svg>', name
    )


@register.simple_tag
def status(state: str, word: str = "", badge: bool = False) -> SafeString:
    """A status as shape, word and colour. `word` replaces the usual one."""
    return format_html(
        '<span class="status is-{}{}">{}{}</span>',
        state,
        " badge" if badge else "",
        icon(SHAPES.get(state, state)),
        word or WORDS.get(state, state.capitalize()),
    )


@register.simple_tag
def money(amount: Decimal | None, simulated: bool = False) -> SafeString:
    """An amount in USD; a simulated one gets its dotted line. None says "unpriced"."""
    text = words.money(amount)
    if not simulated or amount is None:
        return format_html("{}", text)
    return format_html('<span class="sim" title="simulated">{}</span>', text)


@register.simple_tag
def moment(value: datetime | None, style: str = "clock") -> SafeString:
    """A time in UTC. Styles: clock 07:00:04, full 2026-11-22 07:00:04 UTC.

    Style day is 07:00 today, 21 Nov 07:00 on another day, 21 Nov 2025 in another year.
    """
    if value is None:
        return mark_safe("")
    formats = {"clock": "%H:%M:%S", "full": "%Y-%m-%d %H:%M:%S UTC"}
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(timespec="seconds"),
        value.strftime("%Y-%m-%d %H:%M:%S UTC"),
        words.day_or_time(value, timezone.now()) if style == "day" else value.strftime(formats[style]),
    )


@register.simple_tag
def ago(value: datetime | None) -> SafeString:
    """How long ago; the browser keeps it counting."""
    if value is None:
        return mark_safe("")
    return format_html(
        '<time datetime="{}" title="{}" data-ago="{}">{}</time>',
        value.isoformat(timespec="seconds"),
        value.strftime("%Y-%m-%d %H:%M:%S UTC"),
        words.epoch_ms(value),
        words.ago(value, timezone.now()),
    )


@register.simple_tag
def countdown(until: datetime) -> SafeString:
    """Time left; the browser counts it down and stops at zero."""
    left = until - timezone.now()
    return format_html(
        '<time datetime="PT{}S" data-until="{}">{}</time>',
        round(words.seconds_of(left)),
        words.epoch_ms(until),
        words.clock(left),
    )


@register.simple_tag
def elapsed(since: datetime | None, until: datetime | None = None, style: str = "clock") -> SafeString:
    """Time between two moments; without an end the browser keeps it counting."""
    if since is None:
        return mark_safe("–")
    show = words.clock if style == "clock" else words.duration
    if until is not None:
        return format_html("{}", show(until - since))
    return format_html(
        '<time data-since="{}" data-style="{}">{}</time>',
        words.epoch_ms(since),
        style,
        show(timezone.now() - since),
    )


@register.simple_tag
def paragraphs(text: str, caret: bool = False) -> SafeString:
    """Untrusted prose as escaped paragraphs. `caret` marks the last one as still being written."""
    parts = [part.strip("\n") for part in words.plain(text).split("\n\n") if part.strip()]
    if caret and not parts:
        parts = [""]
    last = len(parts) - 1
    return format_html_join(
        "",
        "<p{}>{}</p>",
        ((mark_safe(' class="caret"') if caret and i == last else "", part) for i, part in enumerate(parts)),
    )


@register.simple_tag
def answer(text: str, evidence: dict[str, str]) -> SafeString:
    """The final answer as escaped paragraphs; evidence ids link to the steps they come from."""

    def link(match: re.Match[str]) -> str:
        address = evidence.get(match.group())
        return f'<a href="{address}">{match.group()}</a>' if address else match.group()

    return mark_safe(EVIDENCE.sub(link, paragraphs(text)))  # noqa: S308 - escaped by paragraphs


@register.filter
def alternatives(names: Sequence[str]) -> str:
    """a; a or b; a, b or c."""
    return " or ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


@register.simple_tag
def max_reason_characters() -> int:
    """How long the reason of a decision may be."""
    return MAX_REASON_CHARACTERS


@register.inclusion_tag("runs/order.html")
def order(query: RunQuery, name: str, label: str) -> dict[str, Any]:
    """The heading of a column that the list can be ordered by, as a link."""
    sort = query.sort
    direction = "" if sort.name != name else "ascending" if sort.ascending else "descending"
    return {"label": label, "address": query.sorted_by(name).address, "direction": direction}


@register.simple_tag
def severity(value: str) -> SafeString:
    """A severity as a chip; the two that wake people are marked."""
    tones = {"sev1": " tone-bad", "sev2": " tone-warn"}
    return format_html('<span class="chip{}">{}</span>', tones.get(value, ""), value)


@register.inclusion_tag("runs/labels.html", takes_context=True)
def labels(context: Context, run: Run) -> dict[str, Any]:
    """Tags and notes of a run, with their forms for people who may write them."""
    permission = may_start(context["viewer"])
    return {"labels": read_labels(run), "permission": permission, "csrf_token": context.get("csrf_token")}


@register.filter
def of_key(values: Mapping[int, Any], key: int) -> Any:
    """The value of a key; nothing when there is none."""
    return values.get(key)


@register.filter
def signed_percent(change: float) -> str:
    """0.12 is "+12 %"."""
    return f"{'−' if change < 0 else '+'}{abs(round(100 * change))} %"


@register.filter
def signed_duration(seconds: float) -> str:
    """+1.2 s, −400 ms; nothing below a hundredth of a second."""
    if abs(seconds) < 0.01:
        return ""
    return f"{'−' if seconds < 0 else '+'}{words.duration(abs(seconds))}"


@register.filter
def signed_money(amount: Decimal) -> str:
    """+$0.0040, −$0.0040; nothing for no difference."""
    if not amount:
        return ""
    return f"{'−' if amount < 0 else '+'}{words.money(abs(amount))}"


@register.simple_tag
def money_change(before: Decimal | None, after: Decimal | None) -> str:
    """The difference of two amounts, with its sign and in percent; none where one is unpriced."""
    if before is None or after is None or after == before:
        return "–"
    share = f" ({signed_percent(float(after / before - 1))})" if before else ""
    return f"{signed_money(after - before)}{share}"


@register.simple_tag
def change(before: int, after: int) -> str:
    """The difference of two counts with its sign."""
    return f"{'−' if after < before else '+'}{abs(after - before):,}" if after != before else "–"


@register.filter
def svg_percent(share: float | None) -> str:
    """A share as the width of an SVG rectangle."""
    return percent_text(100 * (share or 0))


@register.filter
def grouped(number: int | str) -> str:
    """1,234,567; text stays as it is."""
    return number if isinstance(number, str) else f"{number:,}"


@register.filter
def short(value: Any, length: int = 8) -> str:
    """The first characters of an id or hash."""
    return str(value)[:length]


@register.filter
def short_hash(value: str) -> str:
    """9f3c…41b7"""
    return f"{value[:4]}…{value[-4:]}" if len(value) > 8 else value


@register.filter
def seconds(value: timedelta | float | None) -> str:
    """A limit in seconds as a span: 900 is "15 min"."""
    return "" if value is None else words.span(value)


@register.filter
def code_words(value: str) -> str:
    """A code name as words: outcome_unknown is "outcome unknown", cost_usd is "cost in USD"."""
    return value.replace("_usd", " in USD").replace("_", " ")
