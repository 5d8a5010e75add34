"""Repeats: what was answered is not asked for ever, and looking again after a change is never refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from hypothesis import given, settings
from hypothesis import strategies as st

from runs import actions
from runs.agents import Agent, Limits
from runs.engine import repeats
from runs.engine.drive import drive
from runs.models import Approval, Run, RunStatus, Step, StepKind, StepStatus
from runs.reading.invariants import contradictions
from tests.factories import a_lease, a_run, a_turn, a_waiting_call, reconfigure, rows, run_calls

START = datetime(2026, 11, 22, tzinfo=UTC)
CALLS = [
    ("look", "read", {"service": "api"}),
    ("look", "read", {"service": "db"}),
    ("file_ticket", "write", {"title": "It is slow"}),
    ("restart", "destructive", {"service": "api"}),
]


def answer(data: Any, **fields: Any) -> str:
    return json.dumps({"status": "ok", "evidence_id": "ev_01", "summary": "Seen.", "data": data} | fields)


class Story:
    """The rows of a run, written turn by turn as the engine would: admitted calls run, others are refused."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.now = START

    def step(self, kind: StepKind, **fields: Any) -> Step:
        seq = len(self.steps) + 1
        made = Step(pk=seq, seq=seq, kind=kind, started_at=self.now, ended_at=self.now, **fields)
        self.steps.append(made)
        return made

    def note(self, name: str) -> None:
        self.step(StepKind.NOTE, name=name, status=StepStatus.SUCCEEDED)

    def turn(self, *calls: tuple[str, str, dict[str, Any]], result: str = "", **settled: Any) -> list[Step]:
        """One turn: its calls, each settled with this result unless it is refused as a repeat."""
        turn = self.step(StepKind.MODEL, name="model", status=StepStatus.SUCCEEDED)
        made = [
            self.step(
                StepKind.TOOL,
                parent_id=turn.pk,
                name=name,
                effect=effect,
                arguments=json.dumps(arguments),
                status=StepStatus.PROPOSED,
            )
            for name, effect, arguments in calls
        ]
        for step in made:
            refused = repeats.refusal(self.steps, step, self.now)
            if refused is not None:
                step.status, step.error_kind, step.error = StepStatus.REFUSED, refused.kind, refused.message
                continue
            step.status = StepStatus.SUCCEEDED
            step.result = result or answer({"value": 1})
            for name, value in settled.items():
                setattr(step, name, value)
        return made

    @property
    def fruitless(self) -> int:
        return repeats.fruitless_turns(self.steps)


def refused(steps: list[Step]) -> bool:
    return all(step.error_kind == repeats.REPEATED for step in steps)


LOOK, OTHER, TICKET, RESTART = CALLS


def test_a_second_look_is_free_and_a_third_that_would_say_the_same_is_refused() -> None:
    story = Story()
    assert not refused(story.turn(LOOK)) and not refused(story.turn(LOOK))
    (third,) = story.turn(LOOK)
    assert refused([third]) and "Steps 2 and 4" in third.error and "same answer" in third.error
    assert story.fruitless == 1


def test_polling_goes_on_as_long_as_answers_differ_or_time_passes() -> None:
    story = Story()
    for value in (100, 80, 40, 10, 1):
        assert not refused(story.turn(LOOK, result=answer({"value": value})))
    for _ in range(2):
        story.turn(LOOK, result=answer({"value": 0}))
    assert refused(story.turn(LOOK)) and story.fruitless == 1
    story.now += repeats.FRESH
    assert not refused(story.turn(LOOK, result=answer({"value": 5}))) and story.fruitless == 0


def test_a_slow_drift_is_information_in_the_end() -> None:
    story = Story()
    values = [100 * 0.98**n for n in range(12)]
    for value in values:
        story.turn(LOOK, result=answer({"value": value}))
        story.now += repeats.FRESH
    assert story.fruitless < 2


@pytest.mark.parametrize("change", [TICKET, RESTART])
def test_after_a_change_everything_may_be_looked_at_again(change: tuple[str, str, dict[str, Any]]) -> None:
    story = Story()
    for _ in range(4):
        story.turn(LOOK)
    assert story.fruitless == 2
    assert not refused(story.turn(change)) and story.fruitless == 0
    assert not refused(story.turn(LOOK)) and not refused(story.turn(LOOK))


def test_a_change_that_failed_is_no_change_and_one_of_unknown_outcome_is() -> None:
    story = Story()
    for _ in range(3):
        story.turn(LOOK)
    failed = {"status": StepStatus.FAILED, "is_error": True, "error": "It cannot be done now."}
    story.turn(RESTART, result=answer({}, status="error"), **failed)
    assert refused(story.turn(LOOK))
    story.turn(TICKET, status=StepStatus.UNKNOWN, is_error=True, error="Nobody knows.")
    assert not refused(story.turn(LOOK))


@pytest.mark.parametrize("name", ["resumed", "retried", "follow_up", "resolved"])
def test_what_a_person_says_begins_anew_and_our_own_words_do_not(name: str) -> None:
    story = Story()
    for _ in range(4):
        story.turn(LOOK)
    story.note("continue")
    assert refused(story.turn(LOOK)) and story.fruitless == 3
    story.note(name)
    assert story.fruitless == 0 and not refused(story.turn(LOOK))


def test_the_same_call_twice_in_one_turn_runs_once_and_is_no_reason_to_stop() -> None:
    story = Story()
    first, *others = story.turn(LOOK, LOOK, LOOK, LOOK)
    assert not refused([first]) and refused(others) and f"Step {first.seq}" in others[0].error
    assert story.fruitless == 0


def test_going_round_in_circles_is_seen() -> None:
    story = Story()
    for _ in range(5):
        story.turn(LOOK)
        story.turn(OTHER)
    assert story.fruitless == 6


def test_a_call_that_cannot_work_is_explained_once() -> None:
    story = Story()
    wrong = {"status": StepStatus.FAILED, "is_error": True, "error_kind": "invalid_argument"}
    story.turn(LOOK, result=answer({}, status="error"), error="service: give api or db.", **wrong)
    (again,) = story.turn(LOOK)
    assert refused([again]) and "give api or db" in again.error and "Change the arguments" in again.error
    # Other arguments with the same mistake run, and do not count as progress.
    other = ("look", "read", {"service": "apii"})
    assert not refused(
        story.turn(other, result=answer({}, status="error"), error="service: give api or db.", **wrong)
    )
    assert story.fruitless == 2


def test_nobody_is_asked_twice_about_what_was_refused_until_something_changed() -> None:
    story = Story()
    said = "A reviewer (olga) refused this call. It did not run. Reason: Not before noon."
    story.turn(RESTART, status=StepStatus.REFUSED, is_error=True, error_kind="rejected", error=said)
    story.turn(LOOK)
    (again,) = story.turn(RESTART)
    assert refused([again]) and "Not before noon" in again.error and "nobody was asked again" in again.error
    assert not refused(story.turn(("restart", "destructive", {"service": "db"})))
    assert not refused(story.turn(RESTART))


def test_a_change_is_not_made_twice_without_a_look_in_between() -> None:
    story = Story()
    story.turn(TICKET)
    assert refused(story.turn(TICKET))
    story.turn(LOOK)
    assert not refused(story.turn(TICKET))
    # The tool said that it had been done: that is no change, and going on like this ends.
    for _ in range(3):
        story.turn(LOOK)
        story.turn(TICKET)
    assert story.fruitless >= 3


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (answer({"n": 100}), answer({"n": 104}, evidence_id="ev_09", summary="Else.", hints=["x"]), True),
        (answer({"n": 100}), answer({"n": 110}), False),
        (answer({"n": 0}), answer({"n": 1}), False),
        (answer({"n": True}), answer({"n": 1}), False),
        (answer({"at": "2026-11-22T07:00:00Z"}), answer({"at": "2026-11-22T07:05:09.5Z"}), True),
        (answer({"line": "2026-11-22 07:00:00 full"}), answer({"line": "2026-11-22 07:00:09 empty"}), False),
        (answer({"sample_id": "log_1", "n": 5}), answer({"sample_id": "log_2", "n": 5}), True),
        (answer({"all": ["dep_1"]}), answer({"all": ["dep_2"]}), False),
        (answer({"all": ["dep_1"]}), answer({"all": ["dep_1", "dep_2"]}), False),
        (answer({"a": 1}), answer({"a": 1, "b": None}), False),
        (answer({}, summary="Nothing."), answer({}, summary="Full."), False),
        (answer({}, status="partial"), answer({}), False),
        ("plain text", "plain text", True),
        ("plain text", "other text", False),
        ("[1, 2]", answer({}), False),
    ],
)
def test_what_counts_as_the_same_information(one: str, other: str, same: bool) -> None:
    assert repeats.same_information(one, other) == repeats.same_information(other, one) == same


def turns_of(draw: st.DataObject) -> Iterator[list[int]]:
    """Turns of a model that has only so many ideas."""
    ideas = draw.draw(st.integers(1, 3))
    while True:
        yield draw.draw(st.lists(st.integers(0, ideas - 1), min_size=1, max_size=3))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_run_that_only_repeats_always_ends(data: st.DataObject) -> None:
    reads = [("look", "read", {"service": name}) for name in "abc"]
    failing = data.draw(st.sets(st.integers(0, 2)))
    story = Story()
    for number, ideas in enumerate(turns_of(data)):
        if story.fruitless >= Limits().repeats:
            return
        # Two looks at each of three things tell all there is; three more turns hear that.
        assert number < 12, "it goes on for ever"
        for idea in set(ideas):
            wrong = idea in failing
            status = StepStatus.FAILED if wrong else StepStatus.SUCCEEDED
            story.turn(reads[idea], status=status, is_error=wrong, error=f"{idea} is down" if wrong else "")


@given(data=st.data(), count=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_a_run_with_a_change_before_each_look_is_never_held_up(data: st.DataObject, count: int) -> None:
    story = Story()
    for number in range(count):
        change = data.draw(st.sampled_from([TICKET, RESTART]))
        made = (change[0], change[1], change[2] | {"number": number})
        assert not refused(story.turn(made))
        looks = data.draw(st.lists(st.sampled_from([LOOK, OTHER]), min_size=1, max_size=2, unique_by=str))
        assert not any(refused([step]) for step in story.turn(*looks))
        assert story.fruitless == 0
        story.now += timedelta(seconds=1)


# Through the engine, on rows.


SEARCH = ("search_logs", "read", {"query": "", "services": ["nosuch"], "time_range": {"start": "now-1h"}})


@pytest.mark.django_db(transaction=True)
def test_a_model_that_goes_in_circles_is_told_and_then_asked_for_its_summary(
    faults: Callable[[str], None],
) -> None:
    run = a_run()
    lease = a_lease(run)
    for _ in range(5):
        a_turn(lease, SEARCH)
        run_calls(lease)
    calls = list(run.steps.filter(kind=StepKind.TOOL).order_by("seq"))
    assert [step.error_kind == repeats.REPEATED for step in calls[2:]] == [True] * 3
    assert all(step.is_settled and json.loads(step.result)["status"] for step in calls)
    drive(lease, lambda: False)
    run.refresh_from_db()
    assert (run.status, run.reason) == (RunStatus.STOPPED, "repeats") and run.final_response
    assert "only repeated calls" in run.explanation and contradictions(run) == []
    actions.retry_run(run_id=run.pk, actor="olga")  # a person said so: it needs no higher limit
    run.refresh_from_db()
    assert repeats.fruitless_turns(rows(run)[1]) == 0


@pytest.mark.django_db(transaction=True)
def test_a_tool_has_a_limit_of_its_own_which_a_person_can_raise(faults: Callable[[str], None]) -> None:
    run = a_run()
    limits = Limits(calls_per_tool={"search_logs": 2}, repeats=2)
    reconfigure(run, run.frozen | {"limits": limits.as_data()})
    lease = a_lease(run)
    for number in range(5):
        a_turn(
            lease, ("search_logs", "read", {"query": f"nothing {number}", "time_range": {"start": "now-1h"}})
        )
        run_calls(lease)
    *ran, first, second, third = run.steps.filter(kind=StepKind.TOOL).order_by("seq")
    assert [step.status for step in ran] == [StepStatus.SUCCEEDED] * 2
    assert {step.error_kind for step in (first, second, third)} == {"limit"}
    assert "called 2 times" in first.result and "Go on with what you have" in first.result
    drive(lease, lambda: False)
    run.refresh_from_db()
    assert (run.status, run.reason) == (RunStatus.STOPPED, "repeats")
    with pytest.raises(actions.ActionError, match="no limit “calls_per_tool"):
        actions.retry_run(run_id=run.pk, actor="olga", limits={"calls_per_tool.read_minds": "3"})
    actions.retry_run(
        run_id=run.pk, actor="olga", limits={"calls_per_tool.search_logs": "40", "repeats": "5"}
    )
    run.refresh_from_db()
    assert run.frozen["limits"]["calls_per_tool"] == {"search_logs": 40}
    assert Limits.from_data(run.frozen["limits"]).repeats == 5


def test_an_agent_cannot_limit_a_tool_that_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="read_minds, but its tools are search_logs"):
        Agent("a", "", "", ("search_logs",), limits=Limits(calls_per_tool={"read_minds": 1}))


def test_limits_that_were_frozen_before_there_were_more_still_load() -> None:
    old = {"steps": 60, "tool_calls": 40, "tokens": 600_000, "cost_usd": "2.00", "seconds": 1800}
    assert Limits.from_data(old) == Limits()


@pytest.mark.django_db(transaction=True)
def test_a_person_who_said_no_is_not_asked_the_same_again(operator: User) -> None:
    lease, step, approval = a_waiting_call()
    actions.decide(
        approval_id=approval.pk,
        voter=operator,
        verdict="reject",
        reason="Not before noon",
        revision=1,
        digest=approval.digest,
    )
    lease = a_lease(Run.objects.get(pk=lease.run_id), "worker-2")
    a_turn(lease, (step.name, "destructive", json.loads(step.arguments)))
    run_calls(lease)
    again = Step.objects.filter(run=lease.run_id, kind=StepKind.TOOL).latest("seq")
    assert (again.status, again.error_kind) == (StepStatus.REFUSED, repeats.REPEATED)
    assert "Not before noon" in again.result and Approval.objects.count() == 1
