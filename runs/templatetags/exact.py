"""Amounts to the last digit, for what is filed and checked."""

from __future__ import annotations

from decimal import Decimal

from django import template

register = template.Library()


@register.filter
def exact(amount: Decimal) -> str:
    """1,234.50 or −0.0041355: every digit, two decimals at least, a real minus."""
    whole, _, decimals = f"{abs(amount):,f}".partition(".")
    sign = "−" if amount < 0 else ""
    return f"{sign}{whole}.{decimals.rstrip('0').ljust(2, '0')}"


@register.filter
def cents(amount: Decimal) -> str:
    """$1,234.50: rounded, half to even."""
    rounded = amount.quantize(Decimal("0.01"))
    return f"{'−' if rounded < 0 else ''}${abs(rounded):,f}"


@register.filter
def share_of(part: Decimal, whole: Decimal) -> str:
    """What percentage of the whole, with one decimal."""
    return f"{100 * part / whole:.1f} %" if whole else "–"
