"""Reads of one turn run side by side, effects one by one; no call costs another one its result."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from django.db.models import F

from runs import actions
from runs.actions import Lease, LeaseLost
from runs.engine.drive import Driver
from runs.engine.running import READ_THREADS
from runs.models import Event, Run, StepKind, StepStatus
from tests.conftest import eventually
from tests.factories import a_lease, a_run, a_turn, reconfigure
from tools import registry, threads
from tools.base import Result, Tool, ToolContext, tool

pytestmark = pytest.mark.django_db(transaction=True)
Offer = Callable[..., None]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Registers tools of a test: name, what it does with the number of its call, options."""

    def register(name: str, does: Callable[[int], Any], **options: Any) -> None:
        def work(context: ToolContext, *, number: int) -> Result:
            """Do what the test says."""
            does(number)
            return Result(f"{name} {number} is done.")

        work.__name__ = name
        made: Tool = tool(**({"effect": "read", "describe": lambda _: name} | options))(work)
        monkeypatch.setitem(registry.TOOLS, name, made)

    return register


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds tools until it is set; at the end of the test their threads are let go and waited for."""
    event = threading.Event()
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name == "call":
            thread.join(10)
    threads.end(10)


def proposed(*names: str) -> tuple[Lease, Run, list[int]]:
    """A turn that calls these tools, each authorised and ready."""
    run = a_run()
    configuration = run.frozen
    configuration["tools"] = [registry.TOOLS[name].definition() for name in sorted(set(names))]
    reconfigure(run, configuration)
    run = Run.objects.get(pk=run.pk)
    lease = a_lease(run)
    made = a_turn(
        lease, *((name, registry.TOOLS[name].effect, {"number": n}) for n, name in enumerate(names))
    )
    for step in made:
        actions.allow_call(lease, step.seq, rule="test")
    return lease, run, [step.seq for step in made]


def run_all(lease: Lease, run: Run) -> None:
    """Drive until no call is left, and not on to the next turn of the model."""
    driver, record = Driver(lease), None
    while run.steps.filter(status__in=[StepStatus.READY, StepStatus.EXECUTING]).exists():
        act = driver.advance(record, lambda: False)
        if act is None or run.steps.filter(status=StepStatus.RUNNING).exists():
            return
        record = act()
    if record is not None:
        with actions.together(lease):
            record.store()


def events(run: Run) -> list[tuple[str, int]]:
    rows = Event.objects.filter(run=run, kind__in=["call.started", "call.finished"]).order_by("seq")
    return [(row.kind.removeprefix("call."), json.loads(row.data)["step"]) for row in rows]


def statuses(run: Run) -> list[str]:
    return list(run.steps.filter(kind=StepKind.TOOL).order_by("seq").values_list("status", flat=True))


def test_reads_of_one_turn_run_at_once_after_all_of_them_have_started(offer: Offer) -> None:
    together = threading.Barrier(4)
    offer("look", lambda _: together.wait(20))
    lease, run, seqs = proposed(*["look"] * 4)
    run_all(lease, run)
    assert statuses(run) == [StepStatus.SUCCEEDED] * 4
    assert events(run)[:4] == [("started", seq) for seq in seqs]
    assert sorted(events(run)[4:]) == [("finished", seq) for seq in seqs]


def test_a_result_is_recorded_while_an_earlier_read_still_runs(offer: Offer) -> None:
    def second_is_recorded() -> bool:
        return Event.objects.filter(kind="call.finished").exists()

    offer("look", lambda number: eventually(second_is_recorded) if number == 0 else None)
    lease, run, seqs = proposed("look", "look")
    run_all(lease, run)
    assert statuses(run) == [StepStatus.SUCCEEDED] * 2
    assert events(run)[2:] == [("finished", seqs[1]), ("finished", seqs[0])]


def test_no_more_than_a_few_run_at_once_and_each_gets_its_own_result(offer: Offer) -> None:
    full = threading.Barrier(READ_THREADS)
    running = threading.Semaphore(READ_THREADS)
    crowded: list[int] = []

    def look(number: int) -> None:
        if not running.acquire(blocking=False):
            crowded.append(number)
        if number < READ_THREADS:
            full.wait(20)
        running.release()

    offer("look", look)
    lease, run, seqs = proposed(*["look"] * (2 * READ_THREADS + 3))
    run_all(lease, run)
    made = run.steps.filter(kind=StepKind.TOOL).order_by("seq")
    assert [step.summary for step in made] == [f"look {n} is done." for n in range(len(seqs))]
    assert crowded == []


def test_effects_run_one_by_one_in_the_order_of_the_model_after_the_reads(offer: Offer) -> None:
    order: list[str] = []
    offer("look", lambda number: order.append(f"look {number}"))
    offer("note", lambda number: order.append(f"note {number}"), effect="write")
    lease, run, seqs = proposed("note", "look", "note", "look", "note")
    run_all(lease, run)
    assert sorted(order[:2]) == ["look 1", "look 3"]
    assert order[2:] == ["note 0", "note 2", "note 4"]
    effects = [seqs[0], seqs[2], seqs[4]]
    assert events(run)[-6:] == [(kind, seq) for seq in effects for kind in ("started", "finished")]


def test_a_read_that_hangs_holds_neither_its_neighbours_nor_the_process(
    offer: Offer, gate: threading.Event
) -> None:
    kinds: list[bool] = []

    def look(number: int) -> None:
        kinds.extend(t.daemon for t in threading.enumerate() if t.name in {"call", "tool"})

    offer("look", look)
    offer("hang", lambda _: gate.wait(60), deadline_seconds=0.05)
    lease, run, _ = proposed("hang", "look", "hang")
    run_all(lease, run)
    assert statuses(run) == [StepStatus.FAILED, StepStatus.SUCCEEDED, StepStatus.FAILED]
    assert list(run.steps.filter(name="hang").values_list("error_kind", flat=True)) == ["timeout"] * 2
    assert kinds and all(kinds)


def test_a_lost_lease_abandons_what_has_not_begun_and_records_nothing_more(
    offer: Offer, gate: threading.Event
) -> None:
    begun: list[int] = []

    def look(number: int) -> None:
        begun.append(number)
        if number == 0:  # somebody else takes the run over while it is read
            Run.objects.update(fence=F("fence") + 1, lease_owner="worker-2")
        else:
            gate.wait(60)

    offer("look", look)
    lease, run, seqs = proposed(*["look"] * (READ_THREADS + 4))
    with pytest.raises(LeaseLost):
        run_all(lease, run)
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "call":
            thread.join(10)
    # The thread that had finished may have taken one more call before the loss was noticed.
    assert len(begun) <= READ_THREADS + 1
    assert statuses(run) == [StepStatus.EXECUTING] * len(seqs)


def test_a_lease_that_was_lost_before_starts_nothing(offer: Offer) -> None:
    begun: list[int] = []
    offer("look", begun.append)
    lease, run, _ = proposed("look", "look")
    Run.objects.update(fence=F("fence") + 1, lease_owner="worker-2")
    with pytest.raises(LeaseLost):
        run_all(lease, run)
    assert begun == [] and statuses(run) == [StepStatus.READY] * 2


def test_a_call_that_may_not_run_is_refused_and_the_others_run(offer: Offer) -> None:
    offer("look", lambda _: None)
    offer("gone", lambda _: None)
    lease, run, _ = proposed("look", "gone", "look")
    registry.TOOLS.pop("gone")
    run_all(lease, run)
    assert statuses(run) == [StepStatus.SUCCEEDED, StepStatus.REFUSED, StepStatus.SUCCEEDED]


def test_a_read_that_has_become_a_change_since_it_was_proposed_does_not_run(offer: Offer) -> None:
    begun: list[int] = []
    offer("look", begun.append)
    lease, run, _ = proposed("look")
    offer("look", begun.append, effect="write")
    run_all(lease, run)
    step = run.steps.get(kind=StepKind.TOOL)
    assert (step.status, step.error_kind, begun) == (StepStatus.REFUSED, "changed", [])


@pytest.mark.parametrize("effect", ["read", "write"])
def test_a_driver_does_not_wait_for_a_tool_that_hangs_once_its_run_is_cancelled(
    offer: Offer, gate: threading.Event, effect: str
) -> None:
    begun = threading.Event()

    def hang(_: int) -> None:
        begun.set()
        gate.wait(60)

    offer("look", hang, effect=effect)
    lease, run, _ = proposed("look")
    let_go = threading.Event()

    def drive() -> None:
        try:
            with pytest.raises(LeaseLost):
                run_all(lease, run)
            let_go.set()
        finally:
            connections.close_all()

    driver = threading.Thread(target=drive)
    driver.start()
    assert begun.wait(10)
    actions.cancel_run(run_id=run.pk, actor="olga")
    driver.join(10)
    assert let_go.is_set() and not gate.is_set()
    assert statuses(run) == ["refused" if effect == "read" else "unknown"]
