"""Rows of the list and of a trace: a page has up to two hundred, and templates take longer for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import template
from django.template import Context
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from runs.reading import words
from runs.reading.run_rows import RunRow
from runs.reading.trace import Section
from runs.reading.trace_rows import Bar, Row
from runs.templatetags.agentops import elapsed, icon, moment, money, status

register = template.Library()


@register.simple_tag
def run_cells(row: RunRow) -> SafeString:
    """The cells of a run in the list."""
    run = row.run
    return format_html(
        '<td class="t-status">{}</td>\n'
        '  <th class="t-what" scope="row"><a class="q clip" href="{}">{}</a>'
        '<span class="sub clip">#{} · {}{} · {}{}</span></th>\n'
        '  <td class="t-steps r">{}</td>\n'
        '  <td class="t-time"><span class="dur"><span class="num r">{}</span>{}</span></td>\n'
        '  <td class="t-tokens r">{}</td>\n'
        '  <td class="t-cost r">{}</td>\n'
        '  <td class="t-age r">{}</td>',
        status(row.status, word=row.word),
        run.get_absolute_url(),
        words.plain(row.question),
        row.pk,
        format_html('<span class="{}">{}</span> · ', row.tone, words.plain(row.line)) if row.line else "",
        run.agent,
        run.started_by,
        _safe(format_html(' <span class="chip">{}</span>', tag) for tag in row.tags),
        row.steps or "–",
        elapsed(row.started_at, row.ended_at),
        _spans(row),
        words.tokens(row.tokens) if row.tokens else "–",
        _cost(row),
        moment(run.created_at, "day"),
    )


def _spans(row: RunRow) -> SafeString:
    """How the time was spent; positions are numbers of our own."""
    times = escape(row.times or "not started")
    rects = "".join(
        f'<rect class="{piece.kind}" x="{piece.x}" y="{0.5 if piece.kind == "wait" else 0}" '
        f'width="{piece.width}" height="{7 if piece.kind == "wait" else 8}"/>'
        for piece in row.pieces
    )
    return _safe([f'<svg class="spans" role="img" aria-label="{times}"><title>{times}</title>{rects}</svg>'])


def _cost(row: RunRow) -> SafeString:
    if not row.tokens:
        return _safe(['<span class="faint">–</span>'])
    if row.unpriced and not row.run.cost_usd:
        return _safe(["unpriced"])
    missing = words.counted(row.unpriced, "call") if row.unpriced else ""
    more = format_html('<span title="{} without a price left out"> +?</span>', missing) if missing else ""
    return format_html("{}{}", money(row.run.cost_usd, row.run.simulated), more)


@register.simple_tag
def place(section: Section, talks: bool) -> SafeString:
    """The place of a section that was not read, with a link to it."""
    view = "&amp;view=conversation" if talks else ""
    number, first, last = section.number, section.first, section.last
    return mark_safe(  # noqa: S308 - numbers of our own
        f'<li id="section-{number}" class="section place" data-section="{number}" '
        f'data-steps="{first}-{last}">'
        f'<a class="place-link" href="?section={number}{view}#section-{number}">'
        f"Steps {first:,} to {last:,}</a>"
        f'<svg class="room" width="1" height="{section.height}" aria-hidden="true"></svg></li>'
    )


@register.simple_tag(takes_context=True)
def turn(context: Context, row: Row, oob: bool = False) -> SafeString:
    """A step in its place, with what it said or asks, and the steps inside it."""
    seq, section = row.seq, context["section"].number
    fold = inside = ""
    if row.children:
        fold = (
            f'<button class="fold-turn" type="button" aria-expanded="true" aria-controls="inside-{seq}" '
            f'tabindex="-1"><span class="vh">{words.counted(row.holds, "step")} inside step {seq}</span>'
            "</button>"
        )
        inside = f'<ol id="inside-{seq}">{"".join(turn(context, child) for child in row.children)}</ol>'
    classes, swap = ' class="orphan"' if row.is_orphan else "", ' hx-swap-oob="morph"' if oob else ""
    return _safe(
        (
            f'<li id="turn-{seq}" data-in="{section}"{classes}{swap}>\n  {fold}\n  ',
            _line(row, section, context["page"]),
            "\n  ",
            _included(context, "runs/said.html", row=row, said=row.said) if row.said else "",
            "\n  ",
            _included(context, "runs/ask.html", row=row, ask=row.ask) if row.ask else "",
            f"\n  {inside}\n</li>\n",
        )
    )


def _included(context: Context, name: str, **values: Any) -> str:
    """As the tag include does it."""
    assert context.template is not None
    with context.push(**values):
        return context.template.engine.get_template(name).render(context)


def _line(row: Row, section: int, page: Any) -> SafeString:
    """The line of a step, a link to it. A section on its own has no page with a step in its panel."""
    seq = str(row.seq)
    shown = page.get("shown_seq") if isinstance(page, dict) else page.shown_seq
    talks = page.get("talks") if isinstance(page, dict) else page.talks
    return format_html(
        '<a class="row" href="?step={}{}" id="row-{}" data-step="{}"{}>\n'
        '    <span class="name"><span class="seq">{}</span>{}<b>{}</b>{}{}{}</span>\n    {}\n'
        '    <span class="d">{}</span><span class="c">{}</span>\n  </a>',
        seq,
        _safe(["&amp;view=conversation"]) if talks else "",
        seq,
        seq,
        _safe([' aria-current="true"']) if row.seq == shown else "",
        seq,
        icon(row.icon),
        row.name,
        format_html(' <span class="faint nowrap">attempt {}</span>', row.attempt) if row.attempt > 1 else "",
        format_html(" {}", status(row.status)) if row.shows_status else "",
        format_html('<span class="arg clip">{}</span>', words.plain(row.summary)) if not row.said else "",
        _lane(row.bars, section) if not row.said else "",
        elapsed(row.started_at, row.ended_at, "duration") if row.shows_time else "",
        money(row.cost, row.simulated) if row.has_cost else "",
    )


def _lane(bars: Iterable[Bar], section: int) -> SafeString:
    """The bars of a step on the axis of its section."""
    rects = "".join(
        f'<rect class="{bar.kind}" x="{bar.x}" width="{bar.width}"{" data-grows" if bar.is_open else ""}/>'
        for bar in bars
    )
    return _safe([f'<svg class="lane" aria-hidden="true"><use href="#grid-{section}"/>{rects}</svg>'])


def _safe(parts: Iterable[str]) -> SafeString:
    """Parts that are escaped, or that only we wrote."""
    return mark_safe("".join(parts))  # noqa: S308
