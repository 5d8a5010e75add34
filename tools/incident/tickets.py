"""create_incident_ticket: one ticket per incident, brought up to date by later calls."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from django.db import transaction
from django.utils import timezone
from pydantic import Field

from tools.base import Result, ToolContext, tool
from tools.incident import asking
from tools.models import Ticket
from tools.redaction import visible

TITLE_CHARACTERS = 120
TEXT_CHARACTERS = 8_000
MOST_ENTRIES = 50
FIRST_NUMBER = 1000
PAGING = ("sev1", "sev2")
Severity = Literal["sev1", "sev2", "sev3", "sev4"]


def _headline(arguments: dict[str, Any]) -> str:
    return f"{arguments.get('severity', '')}: {str(arguments.get('title', ''))[:TITLE_CHARACTERS]}"


@tool(effect="write", idempotency="key", describe=_headline, deadline_seconds=20)
def create_incident_ticket(
    context: ToolContext,
    *,
    title: Annotated[str, Field(description="At most 120 characters, symptom + service")],
    severity: Annotated[
        Severity,
        Field(
            description="sev1 customer-wide outage, page now; sev2 major degradation, page; sev3 minor, "
            "working hours; sev4 informational"
        ),
    ],
    summary: str | None = None,
    suspected_root_cause: str | None = None,
    evidence_ids: Annotated[
        list[str] | None, Field(description="evidence ids (ev_...) from earlier tool results")
    ] = None,
    services: list[str] | None = None,
) -> Result:
    """File the incident ticket, or bring the one of this incident up to date.

    There is one ticket per incident, so calling this again is safe: it updates that ticket. sev1 and sev2
    page the person on call, once. State what is known, what is suspected and which evidence shows it.
    """
    backend = asking.connect(context)
    backend.pause(0.3)
    values, warnings = _values(title, summary, suspected_root_cause, evidence_ids, services)
    data = _save(context, severity, values)
    done = "created" if data["outcome"] == "created" else "brought up to date"
    paged = "; the person on call was paged" if data["paged"] else ""
    return Result(
        summary=f"Ticket {data['ticket_id']} was {done} as {severity}{paged}.",
        data=data,
        source=asking.source(backend),
        warnings=warnings,
    )


def _values(
    title: str,
    summary: str | None,
    suspected_root_cause: str | None,
    evidence_ids: list[str] | None,
    services: list[str] | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the columns to write, what had to be shortened). What was left out stays as it is."""
    warnings: list[str] = []

    def short(text: str, limit: int, name: str) -> str:
        cleaned = visible(text).strip()
        if len(cleaned) > limit:
            warnings.append(f"{name} had {len(cleaned):,} characters; the first {limit:,} were kept.")
        return cleaned[:limit]

    values: dict[str, Any] = {"title": short(title, TITLE_CHARACTERS, "title") or "Untitled incident"}
    if summary is not None:
        values["summary"] = short(summary, TEXT_CHARACTERS, "summary")
    if suspected_root_cause is not None:
        values["suspected_root_cause"] = short(suspected_root_cause, TEXT_CHARACTERS, "suspected_root_cause")
    for name, entries in (("evidence_ids", evidence_ids), ("services", services)):
        if entries is not None:
            values[name] = [visible(entry)[:64] for entry in entries[:MOST_ENTRIES]]
            if len(entries) > MOST_ENTRIES:
                warnings.append(f"{name} had {len(entries)} entries; the first {MOST_ENTRIES} were kept.")
    return values, tuple(warnings)


@transaction.atomic
def _save(context: ToolContext, severity: str, values: dict[str, Any]) -> dict[str, Any]:
    """Create or update the ticket of this world; the same key gets the same answer without a second write."""
    now = timezone.now()
    dedup_key = f"world:{context.world}"
    ticket, created = Ticket.objects.select_for_update().get_or_create(
        dedup_key=dedup_key,
        defaults={
            **values,
            "severity": severity,
            "reference": uuid.uuid4().hex,  # until the number of the row is known
            "world": context.world,
            "request_id": context.world,
            "created_at": now,
        },
    )
    if not created and ticket.last_idempotency_key == context.idempotency_key:
        return dict(ticket.last_answer)
    ticket.reference = f"INC-{FIRST_NUMBER + int(ticket.pk)}"
    for name, value in values.items():
        setattr(ticket, name, value)
    pages = severity in PAGING and ticket.paged_at is None
    if pages:
        ticket.paged_at = now
    ticket.severity = severity
    ticket.updated_at = now
    ticket.last_idempotency_key = context.idempotency_key
    answer = ticket.as_data() | {"outcome": "created" if created else "updated", "paged": pages}
    ticket.last_answer = answer
    ticket.save()
    return answer
