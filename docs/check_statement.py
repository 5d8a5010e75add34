"""Checks the digest of a monthly statement against its exported entries; needs Python and nothing else.

    python check_statement.py statement-2026-11.jsonl

The file is what *Its entries as JSON lines* on the statement gives, or any export of the same entries. It
prints the number of entries, their sums in USD, and the SHA-256 that the statement shows.
"""

from __future__ import annotations

import hashlib
import json
import sys
from decimal import Decimal
from pathlib import Path

COLUMNS = (
    *("entry_id", "kind", "at", "booked_at", "request_id", "step", "agent", "user", "model", "simulated"),
    *("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "output_tokens"),
    *("web_searches", "amount_usd"),
)


def main(path: str) -> None:
    """Print what the entries in this file come to."""
    with Path(path).open(encoding="ascii") as file:
        entries = [json.loads(line) for line in file]
    entries.sort(key=lambda entry: (entry["at"], entry["entry_id"]))
    digest, sums = hashlib.sha256(), {False: Decimal(0), True: Decimal(0)}
    for entry in entries:
        if entry["amount_usd"] is None:  # without a price
            entry["amount_usd"] = ""
        line = json.dumps([entry[name] for name in COLUMNS], separators=(",", ":"), ensure_ascii=True)
        digest.update(line.encode("ascii") + b"\n")
        sums[entry["simulated"]] += Decimal(entry["amount_usd"] or 0)
    print(f"entries    {len(entries)}")
    print(f"sum        {sums[False].normalize():f} USD")
    print(f"simulated  {sums[True].normalize():f} USD")
    print(f"sha256     {digest.hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give the exported file: python check_statement.py statement-2026-11.jsonl")
    main(sys.argv[1])
