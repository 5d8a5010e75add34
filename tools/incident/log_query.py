"""The small query language of search_logs: words are ANDed, "a phrase" is exact, -word excludes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tools.base import ToolError
from tools.records import LogLine

MOST_TERMS = 20
_TERM = re.compile(r'(-?)(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True)
class Query:
    """What a line must contain and must not contain, in lower case."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    def matches(self, line: LogLine) -> bool:
        """Whether the message (or the version or instance that wrote it) fits."""
        text = line.message.lower()
        for term in self.wanted:
            if term not in text and term not in line.version.lower() and term not in line.instance.lower():
                return False
        return not any(term in text for term in self.unwanted)

    @property
    def is_empty(self) -> bool:
        return not self.wanted and not self.unwanted


def parse(text: str) -> Query:
    """The query. Raises ToolError(invalid_argument) for an open quote or too many terms."""
    if text.count('"') % 2:
        raise ToolError("invalid_argument", 'query has a " that is never closed. Close it, or leave it out.')
    wanted: list[str] = []
    unwanted: list[str] = []
    for match in _TERM.finditer(text.lower()):
        term = match[2] if match[2] is not None else match[3]
        if term:
            (unwanted if match[1] else wanted).append(term)
    if len(wanted) + len(unwanted) > MOST_TERMS:
        raise ToolError(
            "invalid_argument", f"query has more than {MOST_TERMS} terms. Use fewer, rarer words."
        )
    return Query(tuple(wanted), tuple(unwanted))
