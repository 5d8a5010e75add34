"""Similar log lines as one pattern: mask what varies, then merge what differs in few words.

The idea is Drain's (a fixed-depth tree over token count and first words); the code is small because lines
are first masked, so most of them meet their pattern by equality.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from tools.records import LEVELS, LogLine

WILDCARD = "<*>"
SIMILAR = 0.6  # share of equal words that makes two lines the same pattern
MOST_TOKENS = 60
_MASKS = re.compile(
    r"""\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]?\d*(?:Z|[ ]UTC|[+-]\d\d:?\d\d)?  # time
    | \d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d[ ][+-]\d{4}
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}             # uuid
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?                                       # address
    | \b0x[0-9a-f]+\b | \b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b                        # hex
    | (?<![A-Za-z])[-+]?\d+(?:[.,:]\d+)*""",
    re.VERBOSE | re.IGNORECASE,
)
_RANK = {level: rank for rank, level in enumerate(LEVELS)}


@dataclass
class Pattern:
    """Lines that say the same. `level` is the worst of them; `sample` is the newest."""

    tokens: list[str]
    sample: LogLine
    sample_number: int
    level: str
    count: int = 0
    first: float = float("inf")
    last: float = float("-inf")
    services: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)

    @property
    def text(self) -> str:
        return " ".join(self.tokens)

    def add(self, line: LogLine, number: int) -> None:
        """Count a line in."""
        self.count += 1
        self.first = min(self.first, line.at)
        if line.at >= self.last:
            self.last, self.sample, self.sample_number = line.at, line, number
        if _RANK.get(line.level, 0) > _RANK.get(self.level, 0):
            self.level = line.level
        self.services[line.service] += 1
        self.versions[line.version] += 1


def masked(message: str) -> str:
    """The message with numbers, times, addresses and identifiers replaced by the wildcard."""
    return _MASKS.sub(WILDCARD, message)


def patterns(lines: list[LogLine]) -> list[Pattern]:
    """The patterns of these lines: worst level first, then most frequent, then newest."""
    known: dict[str, Pattern] = {}
    families: dict[tuple[int, str], list[Pattern]] = {}
    for number, line in enumerate(lines):
        text = masked(line.message)
        pattern = known.get(text)
        if pattern is None:
            tokens = text.split()[:MOST_TOKENS]
            family = families.setdefault((len(tokens), _first_word(tokens)), [])
            pattern = _similar(family, tokens)
            if pattern is None:
                pattern = Pattern(tokens, line, number, line.level)
                family.append(pattern)
            known[text] = pattern
        pattern.add(line, number)
    found = [pattern for family in families.values() for pattern in family]
    return sorted(found, key=lambda one: (-_RANK.get(one.level, 0), -one.count, -one.last))


def _first_word(tokens: list[str]) -> str:
    return next((token for token in tokens if WILDCARD not in token), WILDCARD)


def _similar(family: list[Pattern], tokens: list[str]) -> Pattern | None:
    """The pattern that shares enough words with these, widened to cover them."""
    for pattern in family:
        equal = sum(mine == its for mine, its in zip(tokens, pattern.tokens, strict=True))
        if tokens and equal / len(tokens) >= SIMILAR:
            pattern.tokens = [
                mine if mine == its else WILDCARD for mine, its in zip(tokens, pattern.tokens, strict=True)
            ]
            return pattern
    return None
