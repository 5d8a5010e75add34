"""The live trace of runs in a terminal, read from the same rows as the pages."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from runs.hints import Listener
from runs.models import Approval, Event, Run, Step
from runs.reading import words
from runs.reading.export import money

SAFETY_SECONDS = 0.5


class Trace:
    """Prints what happens, event by event.

    Whatever models, tools and people wrote passes `words.plain` or `words.line` on its way out, in `_line`,
    `_quote` and `_run_started`: none of it can move the cursor, colour the terminal or set its title.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = 0

    def follow(self, run: Run, until: threading.Event) -> None:
        """Print what happens in this run until the event is set, then what is left."""
        self._follow(until, run)

    def follow_all(self, since: Run | None, until: threading.Event) -> None:
        """Print what happens in all runs; from the start of `since`, or from now on."""
        if since is None:
            newest = Event.objects.order_by("-pk").values_list("pk", flat=True).first()
            self._said = newest or 0
        else:
            self._said = Event.objects.filter(run=since).order_by("pk").values_list("pk", flat=True)[0] - 1
        self._follow(until, None)

    def _follow(self, until: threading.Event, run: Run | None) -> None:
        listener = Listener()
        try:
            while not until.is_set():
                self.catch_up(run)
                listener.wait(SAFETY_SECONDS)
            self.catch_up(run)
        finally:
            listener.close()

    def catch_up(self, run: Run | None = None) -> None:
        """Print the events that were not printed yet."""
        events = Event.objects.filter(pk__gt=self._said).select_related("run").order_by("pk")
        if run is not None:
            events = events.filter(run=run)
        for event in events:
            self._said = event.pk
            self._print(event)

    def _print(self, event: Event) -> None:
        handler = {
            "run.started": self._run_started,
            "model.finished": self._turn,
            "model.failed": self._turn_failed,
            "call.started": self._call_started,
            "call.finished": self._call_settled,
            "call.refused": self._call_settled,
            "call.unknown": self._call_settled,
            "approval.asked": self._asked,
            "approval.vote": self._voted,
            "note.added": self._note,
        }.get(event.kind)
        if handler is not None:
            handler(event)
        elif event.kind in {"run.succeeded", "run.stopped", "run.failed", "run.cancelled", "run.paused"}:
            self._ended(event)

    def _step(self, event: Event) -> Step:
        return Step.objects.get(run=event.run_id, seq=event.fields["step"])

    def _line(self, mark: str, style: str, said: str, tail: str = "") -> None:
        end = ("  " + words.line(tail) if tail else "", "dim")
        self._console.print(Text.assemble((f"{mark} ", style), words.line(said), end), soft_wrap=False)

    def _quote(self, text: str, style: str) -> None:
        shown = words.plain(text).strip()
        if shown:
            self._console.print(Padding(Text(shown, style=style), (0, 2, 0, 4)))

    def _run_started(self, event: Event) -> None:
        run = event.run
        kind = ", simulated" if run.simulated else ""
        title = f"run {str(run.request_id)[:8]} · {run.agent} · {run.model}{kind}"
        self._console.rule(Text(words.line(title), style="dim"))
        self._console.print(Text(words.plain(run.user_query), style="bold"))

    def _turn(self, event: Event) -> None:
        step = self._step(event)
        seconds = f"{step.duration.total_seconds():.1f} s" if step.duration else ""
        cost = "unpriced" if step.cost_usd is None else f"${step.cost_usd:.4f}"
        self._line("◆", "blue", step.name, f"{seconds} · {step.total_tokens:,} tokens · {cost}")
        self._quote(step.reasoning, "dim italic")
        self._quote(step.text, "")

    def _turn_failed(self, event: Event) -> None:
        self._line("✗", "red", self._step(event).error)

    def _call_started(self, event: Event) -> None:
        self._line("→", "cyan", self._step(event).name, event.fields["summary"])

    def _call_settled(self, event: Event) -> None:
        step = self._step(event)
        seconds = step.duration.total_seconds() - step.waited_seconds if step.duration else 0
        marks = {"succeeded": ("✓", "green"), "unknown": ("?", "magenta")}
        mark, style = marks.get(step.status, ("✗", "red"))
        self._line(mark, style, step.summary, f"{step.name} {seconds:.1f} s")

    def _asked(self, event: Event) -> None:
        approval = Approval.objects.get(pk=event.fields["approval"])
        self._line("◇", "yellow", f"Approval needed: {approval.card['headline']} in {approval.environment}")

    def _voted(self, event: Event) -> None:
        data = event.fields
        verdict = "approved" if data["verdict"] == "approve" else "rejected"
        said = f"“{data['reason']}”" if data["reason"] else ""
        self._line("◆", "yellow", f"{event.actor} {verdict} it.", said)

    def _note(self, event: Event) -> None:
        self._line("·", "yellow", self._step(event).summary)

    def _ended(self, event: Event) -> None:
        run = Run.objects.get(pk=event.run_id)
        cost = "unpriced" if run.shown_cost is None else f"${money(run.shown_cost)}"
        if run.unpriced_calls and run.shown_cost is not None:
            cost += f" and {words.counted(run.unpriced_calls, 'unpriced call')}"
        cost += " simulated" if run.simulated else ""
        style = "green" if run.status == "succeeded" else "yellow" if run.status == "stopped" else "red"
        word = "Continued" if run.handed_over else run.get_status_display()
        self._line("■", style, f"{word}.", f"{run.total_tokens:,} tokens · {cost}")
        self._quote(run.explanation, style)
