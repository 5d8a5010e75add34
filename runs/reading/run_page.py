"""The whole run page as one value: the page and its live updates are made of the same."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from django.contrib.auth.models import User
from django.utils import timezone

from runs.models import COOLING_OFF, Run, RunStatus, Step, StepKind
from runs.models.budget import Budget, budget_of
from runs.reading.asks import Ask
from runs.reading.checks import Check, check_of
from runs.reading.payloads import Payload, beginning
from runs.reading.queue import Card, read_card
from runs.reading.rechecks import Look, read_looks
from runs.reading.steps import StepDetail, read_step
from runs.reading.trace import Trace, ending_sections, read_trace, section_of
from runs.reading.workers import is_unattended
from tools.models import Ticket

TITLE_CHARACTERS = 60
QUESTION_CHARACTERS = 400
MAX_FORKS = 20
MAX_CARDS = 5  # questions of one run that are shown in full
MAX_EVIDENCE = 100
MAX_CHECKS = 50
EVIDENCE = re.compile(r"\bev_\d+\b")
STATUS_WORDS = {RunStatus.WAITING: "Waiting for a person"}
VERDICT_WORDS = {RunStatus.SUCCEEDED: "Answered", RunStatus.STOPPED: "Stopped at a limit"}


@dataclass(frozen=True)
class Notice:
    """Why a run is in a state that needs attention, in a sentence a person can act on."""

    tone: str
    icon: str
    title: str
    text: str
    rest: Payload | None = None  # when the text is only the beginning of an explanation


NOBODY = Notice(
    "warn",
    "queued",
    "No worker is running",
    "This run goes on as soon as one is there. Start one with: manage.py worker",
)


@dataclass(frozen=True)
class RunPageView:
    """A run, its trace, and the step in the panel. `selected` None follows the live step."""

    trace: Trace
    detail: StepDetail | None
    selected: int | None
    tickets: tuple[str, ...]
    checks: tuple[Check, ...]
    looks: tuple[Look, ...]  # later, at changes that had worked
    evidence: dict[str, str]  # evidence id -> address of its step, also in the runs it continues
    forks: tuple[Run, ...]  # runs that go on from a step of this one
    cards: tuple[Card, ...] = ()  # of the questions that are open
    talks: bool = False  # read as a conversation, with what was said in each step
    unattended: bool = False  # it waits for a worker, and none is running

    @property
    def run(self) -> Run:
        return self.trace.run

    @property
    def following(self) -> bool:
        return self.selected is None and not self.run.is_ended

    @property
    def shown_seq(self) -> int | None:
        return self.detail.step.seq if self.detail else None

    @cached_property
    def question(self) -> str:
        text = self.run.user_query
        return text[:QUESTION_CHARACTERS].rstrip() + "…" if self.question_is_cut else text

    @property
    def question_is_cut(self) -> bool:
        return len(self.run.user_query) > QUESTION_CHARACTERS

    @cached_property
    def whole_question(self) -> Payload:
        return beginning("question", self.run.user_query)

    @cached_property
    def answer(self) -> Payload:
        """The final answer: of a very long one its beginning, in every part of the page that shows it."""
        return beginning("answer", self.run.final_response)

    @property
    def title(self) -> str:
        """For the tab of the browser: the status first, it is what people look for."""
        return f"{self.run.get_status_display()} · {self.run.user_query[:TITLE_CHARACTERS]} · agentops"

    @property
    def status_word(self) -> str:
        if self.run.status == RunStatus.WAITING and self.trace.open_asks:
            return "Waiting for approval"
        if self.run.handed_over:
            return "Continued"
        if self.run.status == RunStatus.QUEUED and self.run.retry_at:
            return "Can be undone" if self.run.reason == COOLING_OFF else "Tries again soon"
        return STATUS_WORDS.get(RunStatus(self.run.status), "")

    @property
    def verdict_word(self) -> str:
        if self.run.handed_over:
            return "Handed over"
        return VERDICT_WORDS.get(RunStatus(self.run.status), "")

    @property
    def reached_limit(self) -> str:
        """The value of the limit that stopped or paused the run; empty when none did or a retry resets it."""
        if self.run.status not in {RunStatus.STOPPED, RunStatus.PAUSED} or self.run.reason == "repeats":
            return ""
        return str((self.run.frozen.get("limits") or {}).get(self.run.reason, ""))

    @property
    def held_by_budget(self) -> Budget | None:
        """The budget that has paused it, if one did that still exists."""
        return budget_of(self.run.reason) if self.run.status == RunStatus.PAUSED else None

    def card(self, ask: Ask) -> Card | None:
        """All there is to know about this question, while it is open."""
        return next((card for card in self.cards if card.ask.pk == ask.pk), None)

    @property
    def successor(self) -> Run | None:
        """The run that goes on with the work of this one."""
        return next((run for run in self.forks if run.continues), None)

    @property
    def notice(self) -> Notice | None:
        return NOBODY if self.unattended else _notice(self.run)


@dataclass(frozen=True)
class PanelView:
    """One step for the panel alone, in the words of the whole page."""

    run: Run
    detail: StepDetail

    @property
    def shown_seq(self) -> int:
        return self.detail.step.seq

    @property
    def following(self) -> bool:
        return False


def read_panel(run: Run, seq: int, *, viewer: User, now: datetime) -> PanelView | None:
    """This step for the panel, without the trace beside it; None when the run has no such step."""
    detail = read_step(run, seq, viewer=viewer, now=now)
    return PanelView(run, detail) if detail else None


def read_run_page(
    run: Run,
    *,
    selected: int | None,
    viewer: User,
    now: datetime,
    wanted: Collection[int] = (),
    talks: bool = False,
) -> RunPageView:
    """The page with this step in its panel; a step that does not exist falls back to the live one.

    The trace has the rows of the section of that step, or of the `wanted` sections.
    """
    if selected is not None and not 0 < selected <= run.step_count:
        selected = None
    if selected is not None and not wanted:
        wanted = {section_of(selected)}
    trace = read_trace(run, viewer=viewer, now=now, wanted=wanted, talks=talks)
    shown = selected if selected is not None else trace.current_seq
    detail = read_step(run, shown, viewer=viewer, now=now) if shown is not None else None
    tickets = Ticket.objects.filter(request_id=str(run.request_id)).order_by("pk")
    return RunPageView(
        trace=trace,
        detail=detail,
        selected=selected,
        talks=talks,
        tickets=tuple(tickets.values_list("reference", flat=True)[:5]),
        checks=_checks(run) if run.final_response else (),
        evidence=_evidence(run) if run.final_response else {},
        cards=_cards(trace, viewer, now),
        unattended=is_unattended(run, now),
        looks=read_looks(run) if trace.asks else (),
        forks=tuple(
            run.forks.only("pk", "request_id", "parent_run", "copied_steps").order_by("pk")[:MAX_FORKS]
        ),
    )


def read_live_page(run: Run, *, selected: int | None, talks: bool, viewer: User) -> RunPageView:
    """The page as it is now for its live updates: of the trace the end alone, the rest is settled."""
    return read_run_page(
        run,
        selected=selected,
        viewer=viewer,
        now=timezone.now(),
        wanted=ending_sections(run),
        talks=talks,
    )


def read_section_page(
    run: Run, number: int, *, viewer: User, now: datetime, talks: bool = False
) -> RunPageView:
    """The page as far as one section of its trace needs it: nothing else of the run is read."""
    trace = read_trace(run, viewer=viewer, now=now, wanted={number}, and_open=False, talks=talks)
    return RunPageView(
        trace=trace,
        detail=None,
        selected=None,
        tickets=(),
        checks=(),
        looks=(),
        evidence={},
        forks=(),
        cards=_cards(trace, viewer, now),
        talks=talks,
    )


def _cards(trace: Trace, viewer: User, now: datetime) -> tuple[Card, ...]:
    """What the page shows of the questions that are open."""
    cards = (read_card(ask.pk, viewer=viewer, now=now) for ask in trace.open_asks[:MAX_CARDS])
    return tuple(card for card in cards if card is not None)


def _evidence(run: Run) -> dict[str, str]:
    """Where the evidence is that the answer cites."""
    addresses: dict[str, str] = {}
    wanted = set(EVIDENCE.findall(run.final_response)[:MAX_EVIDENCE])
    source: Run | None = run
    while source is not None and wanted - set(addresses):
        cited = source.steps.filter(kind=StepKind.TOOL, evidence_id__in=wanted).order_by("seq")
        page = "" if source is run else source.get_absolute_url()
        found = {name: f"{page}?step={seq}" for name, seq in cited.values_list("evidence_id", "seq")}
        addresses = found | addresses
        source = source.parent_run if source.continues else None
    return addresses


def _checks(run: Run) -> tuple[Check, ...]:
    """The verification each executed change reported in its result."""
    decided = run.approvals.filter(redeemed_at__isnull=False)  # no change runs without one
    changes = Step.objects.filter(pk__in=list(decided.values_list("step_id", flat=True)))
    if run.copied_steps:  # a fork has the changes of its parent without their approvals
        changes |= run.steps.filter(kind=StepKind.TOOL, effect="destructive", seq__lte=run.copied_steps)
    shown = changes.filter(result__gt="").order_by("seq").only("seq", "name", "result")
    return tuple(check for step in shown[:MAX_CHECKS] if (check := check_of(step)) is not None)


def _notice(run: Run) -> Notice | None:
    if not run.explanation:
        return None
    shown = beginning("explanation", run.explanation)
    titles = {
        RunStatus.FAILED: ("bad", "failed", "The run failed"),
        RunStatus.STOPPED: ("", "stopped", "The run was stopped at a limit"),
        RunStatus.PAUSED: ("warn", "paused", "The run is paused and needs a person"),
        RunStatus.CANCELLED: ("", "cancelled", "The run was cancelled"),
        RunStatus.QUEUED: ("warn", "queued", "The run waits before it goes on"),
    }
    if run.handed_over:
        return Notice("", "stopped", "The run is continued in another one", shown.text, shown)
    found = titles.get(RunStatus(run.status))
    return Notice(*found, shown.text, shown) if found else None
