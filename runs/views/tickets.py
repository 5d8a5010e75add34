"""Tickets that agents filed."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from runs.reading.tickets import find_ticket, read_tickets
from runs.views.errors import allow


@allow("GET", "HEAD")
def ticket_list(request: HttpRequest) -> HttpResponse:
    """The latest tickets, newest first."""
    return render(request, "tickets/list.html", {"tickets": read_tickets()})


@allow("GET", "HEAD")
def ticket_page(request: HttpRequest, reference: str) -> HttpResponse:
    """One ticket and the run that filed it."""
    found = find_ticket(reference)
    if found is None:
        raise Http404(f"There is no ticket {reference}.")
    return render(request, "tickets/ticket.html", {"entry": found})
