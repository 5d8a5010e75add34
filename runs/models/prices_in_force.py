"""The prices that hold: what people have set, read at once and remembered, and then the price list.

To look whether somebody changed a price costs one tiny query. Whoever sends a request looks first, so an
installation pays it once per turn; what is priced between two looks has the prices of the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models.signals import post_migrate

from runs import money
from runs.models.override import PriceOverride
from runs.models.sql import execute
from runs.money import Override, UnitPrices

_NEVER_LOOKED = "never"
_NONE = "none"


@dataclass(frozen=True)
class _Seen:
    """What this process saw at its last look; replaced as a whole, because threads share it."""

    version: str
    overrides: tuple[Override, ...]


_seen = _Seen(_NEVER_LOOKED, ())


def look() -> bool:
    """Read what people changed since the last look. Whether anything changed."""
    global _seen
    version = _version()
    if version == _seen.version:
        return False
    before = _seen.overrides
    _seen = _Seen(version, tuple(row.rule for row in PriceOverride.objects.order_by("id")))
    return _seen.overrides != before


def unit_prices(model: str, *, at: datetime, prompt_tokens: int = 0, context: str = "") -> UnitPrices | None:
    """Prices of this model for a call that began at this time, as of the last look; None: unpriced."""
    if _seen.version == _NEVER_LOOKED:
        look()
    return money.unit_prices(
        model, at=at, prompt_tokens=prompt_tokens, context=context, overrides=_seen.overrides
    )


def version_of_prices() -> str:
    """What stays the same as long as no price changes: the last change of people, and the price list."""
    return f"{_version()}; {money.SOURCE}"


def _forget(**_: object) -> None:
    global _seen
    _seen = _Seen(_NEVER_LOOKED, ())


post_migrate.connect(_forget, dispatch_uid="prices in force")


def _version() -> str:
    """Which change is the last. Its time belongs to it: a key may come again in a restored database."""
    row = execute("SELECT id, at FROM runs_pricechange ORDER BY id DESC LIMIT 1", []).fetchone()
    return _NONE if row is None else f"change {row[0]} of {row[1]}"
