"""Prices: what holds and why, what was used without one, and the form that sets them."""

from __future__ import annotations

from collections.abc import Mapping

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from runs.access import may_set_prices
from runs.actions import ActionError
from runs.actions.prices import InvalidPrice, UnknownPrice, end_price, find_price, set_price, withdraw_price
from runs.models import CONTEXTS, PriceOverride
from runs.models.charge import PRICES
from runs.reading.prices import (
    PRICE_LABELS,
    read_override_changes,
    read_overrides,
    read_price_lines,
    read_unpriced,
    suggested,
)
from runs.views.errors import allow
from runs.views.viewer import viewer_of

READ = ("GET", "HEAD")
PLAIN_FIELDS = ("model", "context", "valid_from", "valid_to", "reason")


@allow(*READ)
def price_list(request: HttpRequest) -> HttpResponse:
    """Unpriced usage first, then the models in use with their prices, what people set, and the history."""
    now = timezone.now()
    context = {
        "unpriced": read_unpriced(),
        "lines": read_price_lines(now),
        "labels": PRICE_LABELS,
        "overrides": read_overrides(now),
        "changes": read_override_changes(),
        "permission": may_set_prices(request.user),
    }
    return render(request, "prices/prices.html", context)


@allow(*READ, "POST")
def price_new(request: HttpRequest) -> HttpResponse:
    """A form for a price; an address can name the model and context that it is filled with."""
    if request.method == "POST":
        return _save(request, None)
    model, context = request.GET.get("model", "")[:128], request.GET.get("context", "")
    values = {
        "model": model,
        "context": context,
        **(suggested(model, context) if model else {"web_search": "10"}),
    }
    return _form(request, None, values, {})


@allow(*READ, "POST")
def price_page(request: HttpRequest, pk: int) -> HttpResponse:
    """One override: its history, and the form that makes its next revision."""
    override = _found(pk)
    if request.method == "POST":
        return _save(request, override)
    return _form(request, override, _values_of(override), {})


@allow("POST")
def price_end(request: HttpRequest, pk: int) -> HttpResponse:
    """Let an override hold no longer."""
    return _over(request, pk, "is ended")


@allow("POST")
def price_withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an override back, for the past as well."""
    return _over(request, pk, "is withdrawn")


def _over(request: HttpRequest, pk: int, what: str) -> HttpResponse:
    override, permission = _found(pk), may_set_prices(request.user)
    if not permission:
        return _form(request, override, _values_of(override), {"": permission.why_not}, status=403)
    act = end_price if what == "is ended" else withdraw_price
    try:
        act(actor=viewer_of(request).get_username(), override_id=pk, reason=request.POST.get("reason", ""))
    except ActionError as error:
        return _form(request, override, _values_of(override), {"": str(error)}, status=422)
    messages.success(request, f"Override {pk} of {override.model} {what}.", extra_tags="ok")
    return redirect("price", pk)


def _save(request: HttpRequest, override: PriceOverride | None) -> HttpResponse:
    permission = may_set_prices(request.user)
    sent = {name: request.POST.get(name, "") for name in (*PLAIN_FIELDS, *PRICES)}
    if override is not None:
        sent |= {"model": override.model, "context": override.context}
    if not permission:
        return _form(request, override, sent, {"": permission.why_not}, status=403)
    try:
        saved = set_price(
            actor=viewer_of(request).get_username(),
            override_id=None if override is None else override.pk,
            prices={name: sent[name] for name in PRICES},
            **{name: sent[name] for name in PLAIN_FIELDS},
        )
    except InvalidPrice as error:
        return _form(request, override, sent, error.problems, status=422)
    except ActionError as error:
        return _form(request, override, sent, {"": str(error)}, status=422)
    messages.success(
        request,
        f"The price of {saved.model} is set. Past calls keep theirs until they are repriced.",
        extra_tags="ok",
    )
    return redirect("prices")


def _form(
    request: HttpRequest,
    override: PriceOverride | None,
    values: Mapping[str, str],
    problems: Mapping[str, str],
    *,
    status: int = 200,
) -> HttpResponse:
    context = {
        "override": override,
        "values": values,
        "problems": problems,
        "prices": [
            (name, label, values.get(name, ""), problems.get(name, ""))
            for name, label in PRICE_LABELS.items()
        ],
        "contexts": CONTEXTS,
        "changes": [] if override is None else read_override_changes(override.pk),
        "permission": may_set_prices(request.user),
    }
    return render(request, "prices/price.html", context, status=status)


def _found(pk: int) -> PriceOverride:
    try:
        return find_price(pk)
    except UnknownPrice as error:
        raise Http404 from error


def _values_of(override: PriceOverride) -> dict[str, str]:
    """As the form shows it."""
    times = {
        name: "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}".removesuffix(":00")
        for name, moment in (("valid_from", override.valid_from), ("valid_to", override.valid_to))
    }
    return override.values | times | {"model": override.model, "context": override.context}
