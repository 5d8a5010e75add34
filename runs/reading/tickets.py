"""Tickets with the runs that filed them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from runs.models import Run
from tools.models import Ticket

MAX_TICKETS = 200


@dataclass(frozen=True)
class TicketEntry:
    """A ticket and its run, when that is here."""

    ticket: Ticket
    run: Run | None
    evidence: dict[str, int]  # evidence id -> step of the run

    @property
    def cited(self) -> list[tuple[str, int | None]]:
        """Evidence ids with the step each one comes from."""
        return [(str(name), self.evidence.get(str(name))) for name in self.ticket.evidence_ids]


def read_tickets() -> list[TicketEntry]:
    """The newest tickets: two queries."""
    tickets = list(Ticket.objects.order_by("-created_at", "-pk")[:MAX_TICKETS])
    runs = _runs(ticket.request_id for ticket in tickets)
    return [TicketEntry(ticket, runs.get(ticket.request_id), {}) for ticket in tickets]


def find_ticket(reference: str) -> TicketEntry | None:
    """The ticket of this reference, or None."""
    ticket = Ticket.objects.filter(reference=reference).first()
    if ticket is None:
        return None
    run = _runs([ticket.request_id]).get(ticket.request_id)
    evidence = dict(run.steps.filter(evidence_id__gt="").values_list("evidence_id", "seq")) if run else {}
    return TicketEntry(ticket, run, evidence)


def _runs(request_ids: Iterable[str]) -> dict[str, Run]:
    known = [found for text in set(request_ids) if (found := _uuid(text)) is not None]
    runs = Run.objects.filter(request_id__in=known).defer("config", "final_response")
    return {str(run.request_id): run for run in runs}


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
