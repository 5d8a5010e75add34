"""The history as files: CSV for spreadsheets, JSON lines for programs. Lines come one by one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from runs.models import Verdict
from runs.reading.history import Entry

# A spreadsheet takes a cell that begins with one of these for a formula; some trim spaces or know wide forms.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")

COLUMNS: tuple[tuple[str, Callable[[Entry], Any]], ...] = (
    ("approval", lambda entry: entry.ask.pk),
    ("decided_at", lambda entry: _iso(entry.ask.decided_at)),
    ("state", lambda entry: entry.ask.state),
    ("headline", lambda entry: entry.ask.headline),
    ("environment", lambda entry: entry.ask.environment),
    ("tool", lambda entry: entry.ask.tool),
    ("rule", lambda entry: entry.ask.rule),
    ("agent", lambda entry: entry.run.agent),
    ("request_id", lambda entry: str(entry.run.request_id)),
    ("step", lambda entry: entry.ask.step_seq),
    ("revision", lambda entry: entry.ask.revision),
    ("quorum", lambda entry: entry.ask.quorum),
    ("origin", lambda entry: entry.ask.origin),
    ("changed_by", lambda entry: entry.ask.edited_by),
    ("ended_by", lambda entry: entry.ask.ended_by),
    ("approved_by", lambda entry: [b.voter for b in entry.ask.ballots if b.verdict == Verdict.APPROVE]),
    ("rejected_by", lambda entry: [b.voter for b in entry.ask.ballots if b.verdict == Verdict.REJECT]),
    ("reasons", lambda entry: [ballot.reason for ballot in entry.ask.ballots if ballot.reason]),
    ("seconds_on_card", lambda entry: list(entry.seconds_on_card)),
    ("self_approved", lambda entry: entry.self_approved),
    ("asked_at", lambda entry: _iso(entry.ask.created_at)),
    ("seconds_to_decide", lambda entry: entry.ask.waited_seconds),
    ("ended", lambda entry: entry.ended),
    ("digest", lambda entry: entry.ask.digest),
)


class _Line:
    """What csv writes to: it keeps one line."""

    text = ""

    def write(self, text: str) -> int:
        self.text = text
        return len(text)


def csv_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """A heading and one line per entry; lists are joined, and no cell is a formula to a spreadsheet."""
    line = _Line()
    writer = csv.writer(line)
    writer.writerow([name for name, _ in COLUMNS])
    yield line.text
    for entry in entries:
        writer.writerow([cell(value(entry)) for _, value in COLUMNS])
        yield line.text


def json_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """One JSON object per line and entry, in ASCII."""
    for entry in entries:
        yield json.dumps({name: value(entry) for name, value in COLUMNS}, ensure_ascii=True) + "\n"


def cell(value: Any) -> str:
    """One value as a spreadsheet should take it: what could be a formula begins with an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list):
        value = "; ".join("not known" if part is None else str(part) for part in value)
    text = str(value).replace("\x00", "")
    return f"'{text}" if text.lstrip(" \u00a0").startswith(FORMULA) else text


def _iso(moment: Any) -> str | None:
    return moment.isoformat() if moment else None
