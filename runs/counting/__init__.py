"""What a stretch of the ledger adds up to: the one definition behind kept sums, reports and their check."""

from runs.counting.bars import count_bars
from runs.counting.charges import LOST, OPEN, Counted, Key, count, most_expensive
from runs.counting.hours import end_of, hour_of, start_of
from runs.counting.missed import MissedByRun, missed_by_run
from runs.counting.misses import UNAVOIDABLE, Miss
from runs.counting.snapshot import snapshot

__all__ = [
    "LOST",
    "OPEN",
    "UNAVOIDABLE",
    "Counted",
    "Key",
    "Miss",
    "MissedByRun",
    "count",
    "count_bars",
    "end_of",
    "hour_of",
    "missed_by_run",
    "most_expensive",
    "snapshot",
    "start_of",
]
