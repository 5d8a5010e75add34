"""Drivers of one process that write at the same time share a commit on SQLite, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType

import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction

from runs import actions
from runs.actions.change import together
from runs.actions.group_commit import Writers
from runs.models import Run, RunTag
from runs.reading.invariants import contradictions
from tests.conftest import ROOT, eventually
from tests.factories import a_lease, a_run

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL has many writers"),
]
queues: list[Queue] = []
NOWHERE = 10**9  # the key of a run that does not exist, which SQLite notices at the commit


class Queue:
    """Threads that write: the first one stays in its turn until the others wait for theirs."""

    def __init__(self) -> None:
        self.writers = Writers(longest_seconds=60)
        self._others = 0
        queues.append(self)

    def __call__(self, *works: Callable[[], None]) -> list[Future[None]]:
        threads = ThreadPoolExecutor(len(works))
        self._others = len(works) - 1
        first = threads.submit(closing(works[0]))
        eventually(lambda: self._others == 0 or first.done())
        return [first, *(threads.submit(closing(work)) for work in works[1:])]

    def tagging(self, run: int, name: str, then: Callable[[], object] = bool) -> Callable[[], None]:
        """A change that adds this tag."""

        def work() -> None:
            with self.writers.sharing():
                RunTag.objects.create(run_id=run, name=name)
                others, self._others = self._others, 0
                eventually(lambda: self.writers.waiting >= others)
                then()

        return work


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while queues:
        queues.pop().writers.close()


def closing(work: Callable[[], None]) -> Callable[[], None]:
    def worked() -> None:
        try:
            work()
        finally:
            connections.close_all()

    return worked


def tags() -> set[str]:
    return set(RunTag.objects.values_list("name", flat=True))


def mistake() -> None:
    raise ValueError("a mistake of ours")


def test_nobody_hears_that_a_change_is_stored_before_it_is() -> None:
    run, queue = a_run(), Queue()
    is_inside, may_leave = threading.Event(), threading.Event()

    def wait() -> None:
        is_inside.set()
        may_leave.wait(30)

    first, last = queue(queue.tagging(run.pk, "first"), queue.tagging(run.pk, "last", wait))
    assert is_inside.wait(30)
    assert not first.done(), "its change is not stored yet"
    assert tags() == set()
    may_leave.set()
    assert (first.result(30), last.result(30)) == (None, None)
    assert tags() == {"first", "last"}


def test_hundreds_of_drivers_need_no_connection_of_their_own() -> None:
    run, queue = a_run(), Queue()

    def work(name: str) -> bool:
        with queue.writers.sharing():
            RunTag.objects.create(run_id=run.pk, name=name)
        return connections["default"].connection is None

    names = [f"tag-{number}" for number in range(100)]
    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(work, names))
    assert tags() == set(names)


def test_one_that_fails_among_others_takes_back_only_its_own() -> None:
    run, queue = a_run(), Queue()
    first, failed, other = queue(
        queue.tagging(run.pk, "first"),
        queue.tagging(run.pk, "failed", mistake),
        queue.tagging(run.pk, "other"),
    )
    with pytest.raises(ValueError, match="a mistake of ours"):
        failed.result(30)
    assert (first.result(30), other.result(30)) == (None, None)
    assert tags() == {"first", "other"}


def test_the_first_one_fails_with_nobody_else() -> None:
    run, queue = a_run(), Queue()
    failed, after = queue(queue.tagging(run.pk, "failed", mistake), queue.tagging(run.pk, "after"))
    with pytest.raises(ValueError, match="a mistake of ours"):
        failed.result(30)
    after.result(30)
    assert tags() == {"after"}


def test_the_last_one_fails_and_what_was_left_to_it_is_stored_all_the_same() -> None:
    run, queue = a_run(), Queue()
    before, failed = queue(queue.tagging(run.pk, "before"), queue.tagging(run.pk, "failed", mistake))
    with pytest.raises(ValueError, match="a mistake of ours"):
        failed.result(30)
    before.result(30)
    assert tags() == {"before"}


def test_who_writes_alone_finds_what_was_left_to_him_stored() -> None:
    run, queue = a_run(), Queue()
    seen: set[str] = set()

    def alone() -> None:
        with queue.writers.alone():
            seen.update(tags())

    for one in queue(queue.tagging(run.pk, "before"), alone):
        one.result(30)
    assert seen == {"before"}


def test_everybody_hears_of_a_commit_that_failed_and_then_only_the_guilty_one_fails() -> None:
    run, queue = a_run(), Queue()
    works = (
        queue.tagging(run.pk, "one"),
        queue.tagging(NOWHERE, "no run has it"),
        queue.tagging(run.pk, "two"),
    )
    for one in queue(*works):
        with pytest.raises(OperationalError, match="FOREIGN KEY"):
            one.result(30)
    assert tags() == set()
    one, guilty, two = queue(*works)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        guilty.result(30)
    one.result(30)
    two.result(30)
    assert tags() == {"one", "two"}


def test_an_error_that_ends_the_whole_transaction_is_told_to_all_whose_changes_it_held() -> None:
    run, queue = a_run(), Queue()

    def roll_back() -> None:  # what SQLite does by itself when a disk fails
        with connection.cursor() as cursor:
            cursor.execute("INSERT OR ROLLBACK INTO runs_runtag SELECT * FROM runs_runtag")

    before, failed = queue(queue.tagging(run.pk, "before"), queue.tagging(run.pk, "failed", roll_back))
    with pytest.raises(IntegrityError):
        failed.result(30)
    with pytest.raises(OperationalError, match="shared transaction"):
        before.result(30)
    assert tags() == set()
    (again,) = queue(queue.tagging(run.pk, "again"))
    again.result(30)
    assert tags() == {"again"}


def test_an_interrupt_in_the_middle_of_a_commit_costs_nobody_else_what_he_stores() -> None:
    run, writers, before = a_run(), Queue().writers, sys.gettrace()

    def interrupt(frame: FrameType, _event: str, _argument: object) -> None:
        if frame.f_code is transaction.Atomic.__exit__.__code__:
            sys.settrace(before)
            raise KeyboardInterrupt

    def tag(name: str) -> None:
        with writers.sharing():
            RunTag.objects.create(run_id=run.pk, name=name)

    with pytest.raises(KeyboardInterrupt), writers.sharing():
        RunTag.objects.create(run_id=run.pk, name="interrupted")
        sys.settrace(interrupt)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(tag, "next").result(30)
    assert tags() == {"next"}


def test_runs_that_are_driven_side_by_side_have_whole_histories() -> None:
    runs = [a_run() for _ in range(6)]
    leases = [a_lease(run) for run in runs]
    Run.objects.filter(pk=runs[0].pk).update(fence=7)  # somebody else drives this one

    def drive(lease: actions.Lease) -> None:
        for number in range(10):
            with together(lease):
                actions.add_note(lease, name="note", text=f"{number}", summary="")
                actions.add_note(lease, name="note", text=f"{number} again", summary="")

    with ThreadPoolExecutor(len(leases)) as threads:
        driven = [threads.submit(closing(lambda lease=lease: drive(lease))) for lease in leases]  # type: ignore[misc]
    with pytest.raises(actions.LeaseLost):
        driven[0].result()
    for one, run in zip(driven[1:], runs[1:], strict=True):
        one.result()
        assert run.steps.count() == 20
        assert contradictions(Run.objects.get(pk=run.pk)) == []
    assert not runs[0].steps.exists()


DOOMED = """
import threading, django
django.setup()
from runs.actions.group_commit import Writers
from runs.models import RunTag
writers, may_begin = Writers(longest_seconds=60), threading.Event()
def tag(name):
    with writers.sharing():
        RunTag.objects.create(run_id={run}, name=name)
        may_begin.set()
        while name == "first" and not writers.waiting:
            pass
        if name == "last":
            print("inside", flush=True)
            threading.Event().wait()
    print("stored", name, flush=True)
threading.Thread(target=tag, args=("first",), daemon=True).start()
may_begin.wait()
threading.Thread(target=tag, args=("last",), daemon=True).start()
threading.Event().wait()
"""


def test_a_process_that_is_killed_before_the_shared_commit_has_stored_and_promised_nothing() -> None:
    run = a_run()
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}"}
    with subprocess.Popen(
        [sys.executable, "-c", DOOMED.format(run=run.pk)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "inside\n"
        doomed.kill()
        assert doomed.stdout.read() == ""
    assert tags() == set()
    lease = a_lease(run)
    actions.add_note(lease, name="note", text="It goes on.", summary="")
    assert run.steps.count() == 1
