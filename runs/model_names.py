"""Which model of the price list a name stands for: exactly that one, or a dated version of it. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo

_DAY = r"20\d\d(?P<dash>-?)(?:0[1-9]|1[0-2])(?P=dash)(?:0[1-9]|[12]\d|3[01])"
_DATE = re.compile(rf"[-@]{_DAY}\Z", re.ASCII)
_NUMBER = r"(?P<major>[1-9]\d?)(?:[-.](?P<minor>0|[1-9]\d?))?"
_NAMES = (
    re.compile(rf"claude-(?:(?P<family>[a-z]+)-)?{_NUMBER}(?:-latest)?", re.ASCII),
    re.compile(rf"claude-{_NUMBER}-(?P<family>[a-z]+)(?:-latest)?", re.ASCII),
)


def without_date(model: str) -> str:
    """claude-opus-4 of claude-opus-4-20250514, and of the same with @ or dashes within the date."""
    return _DATE.sub("", model)


def version_of(model: str) -> tuple[str, int, int] | None:
    """Family, major and minor of a name that says nothing else besides a date or -latest; else None."""
    name = without_date(model)
    for pattern in _NAMES:
        if found := pattern.fullmatch(name):
            return found["family"] or "", int(found["major"]), int(found["minor"] or 0)
    return None


@lru_cache(maxsize=256)
def listed_name(model: str) -> str | None:
    """The name under which the price list has this model, or None when it does not have it.

    The list itself takes whatever begins like a name of its own: claude-opus-5.5-fast, claude-opus-4-80.
    """
    for name in (model, without_date(model)):
        found = find_listed(name)
        if found is not None and (found.id == name or version_of(found.id) == version_of(model) is not None):
            return name
    return None


def find_listed(name: str) -> ModelInfo | None:
    """What the price list has for this name, which may be more than it stands for."""
    try:
        return get_snapshot().find_provider_model(name, None, "anthropic", None)[1]
    except LookupError:
        return None
