"""The loop's decisions, tried on thousands of random histories without a model, a tool or a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs.agents import Limits
from runs.engine import moves
from runs.engine.decision import decide
from runs.engine.history import Attempt, Call, History, Item, Note
from runs.engine.limits import Spent
from runs.engine.moves import Situation
from runs.money import MILLION, UnitPrices

START = datetime(2026, 11, 22, tzinfo=UTC)
PRICES = UnitPrices(*(Decimal(price) for price in ("2", "2.5", "4", "0.1", "10", "10")), source="test")
SETTLED = {"succeeded", "failed", "unknown", "refused"}


class World:
    """Plays model, tools, people and crashes at random, and watches that the rules hold."""

    def __init__(self, draw: st.DataObject, limits: Limits) -> None:
        self.draw = draw
        self.limits = limits
        self.items: list[Item] = []
        self.seq = 0
        self.prompt_tokens = 2_000
        self.tokens = 0  # what the API counted
        self.cost = Decimal(0)  # what it bills
        self.counted_tokens = 0  # what the run has to believe
        self.counted_cost = Decimal(0)
        self.tool_calls = 0
        self.now = START
        self.approved: set[int] = set()
        self.starts: dict[int, int] = {}
        self.found: set[int] = set()  # unknown calls that a person looked into
        self.untold = 0

    def choose(self, *options: str) -> str:
        return self.draw.draw(st.sampled_from(options))

    def situation(self) -> Situation:
        spent = Spent(
            steps=self.seq,
            tool_calls=self.tool_calls,
            tokens=self.counted_tokens,
            cost_usd=self.counted_cost,
            active_seconds=(self.now - START).total_seconds(),
        )
        history = History(tuple(self.items), self.prompt_tokens)
        return Situation(history, self.limits, spent, 4_000, 64_000, PRICES, self.now, untold=self.untold)

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def play(self) -> moves.Finish:
        for _ in range(600):
            self.look()
            move = decide(self.situation())
            self.now += timedelta(seconds=1)
            match move:
                case moves.CallModel():
                    self.call_model(move)
                case moves.Authorize(seqs):
                    for seq in seqs:
                        self.authorize(seq)
                case moves.RunTools(seqs):
                    for seq in seqs:
                        self.run(seq)
                case moves.Recover(calls, attempt):
                    self.recover(calls, attempt)
                case moves.Park(until):
                    self.wait(until)
                case moves.Pause():
                    self.items.append(Note(self.next_seq(), "resumed"))
                case moves.WrapUp(limit, sentence):
                    self.items.append(Note(self.next_seq(), f"{moves.WRAP_UP}:{limit}", sentence))
                case moves.Continue():
                    self.items.append(Note(self.next_seq(), moves.CONTINUE))
                case moves.Tell():
                    assert self.untold, "there is nothing to tell"
                    self.items.append(Note(self.next_seq(), "outcome"))
                    self.prompt_tokens += 1_000
                    self.untold = 0
                case moves.Finish():
                    return move
        raise AssertionError("the run never ends")

    def look(self) -> None:
        """A person may find out at any time what became of an unknown call."""
        unknown = [call for call in self.calls() if call.status == "unknown" and call.seq not in self.found]
        if unknown and self.choose("not now", "look") == "look":
            self.found.add(unknown[0].seq)
            self.untold += 1

    def call_model(self, move: moves.CallModel) -> None:
        assert not self.untold, "it is asked without what a person found"
        assert all(call.status in SETTLED for call in self.calls()), "a tool_use has no result yet"
        assert move.reserved_usd is not None
        assert self.counted_cost + move.reserved_usd <= self.limits.cost_usd, "the worst case does not fit"
        used = self.draw.draw(st.integers(0, move.max_tokens))
        tokens = self.prompt_tokens + used
        cost = (self.prompt_tokens * PRICES.cache_write_1h + used * PRICES.output) / MILLION
        self.tokens += tokens
        self.cost += cost
        ways = ["end", "empty", "refusal", "retry", "pause", "fail", "cut", "crash", "paused_turn", "odd"]
        if not move.final:
            ways += ["tools"] * 12
        way = self.choose(*ways)
        # Of an attempt that broke off only the reservation is known for sure.
        broke_off = way in {"crash", "retry"}
        self.counted_tokens += move.reserved_tokens if broke_off else tokens
        self.counted_cost += move.reserved_usd if broke_off else cost
        seq = self.next_seq()
        failed = {"retry": "retry", "pause": "pause", "fail": "fail", "cut": "retry"}
        if way == "crash":
            self.items.append(Attempt(seq, "running"))
        elif way in failed:
            kind = "max_tokens" if way == "cut" else "overloaded_error"
            self.items.append(
                Attempt(
                    seq,
                    "failed",
                    error_action=failed[way],
                    error_kind=kind,
                    error="It failed.",
                    ended_at=self.now,
                )
            )
        else:
            reasons = {"refusal": "refusal", "paused_turn": "pause_turn", "odd": "novel", "tools": "tool_use"}
            calls = self.propose() if way == "tools" else ()
            self.prompt_tokens += used
            self.items.append(
                Attempt(seq, "succeeded", reasons.get(way, "end_turn"), is_empty=way == "empty", calls=calls)
            )

    def propose(self) -> tuple[Call, ...]:
        count = self.draw.draw(st.integers(1, 4))
        self.tool_calls += count
        effects = [self.choose("read", "read", "write", "destructive") for _ in range(count)]
        return tuple(Call(self.next_seq(), "proposed", effect) for effect in effects)

    def calls(self) -> list[Call]:
        return [call for item in self.items if isinstance(item, Attempt) for call in item.calls]

    def call(self, seq: int) -> Call:
        return next(call for call in self.calls() if call.seq == seq)

    def set(self, seq: int, status: str) -> None:
        for number, item in enumerate(self.items):
            if isinstance(item, Attempt) and any(call.seq == seq for call in item.calls):
                changed = tuple(
                    replace(call, status=status) if call.seq == seq else call for call in item.calls
                )
                self.items[number] = replace(item, calls=changed)

    def authorize(self, seq: int) -> None:
        call = self.call(seq)
        assert call.status == "proposed"
        ways = ["refused", "waiting"] if call.effect == "destructive" else ["ready", "ready", "refused"]
        self.set(seq, self.choose(*ways))

    def run(self, seq: int) -> None:
        call = self.call(seq)
        assert call.status == "ready"
        if call.effect != "read":
            turn = next(i for i in self.items if isinstance(i, Attempt) and call in i.calls)
            assert not any(c.status in {"waiting", "proposed"} for c in turn.calls), "the barrier is broken"
            before = [c for c in turn.calls if c.seq < seq and c.effect != "read"]
            assert all(c.status in SETTLED for c in before), "effects run out of the model's order"
        if call.effect == "destructive":
            assert seq in self.approved, "nobody approved this"
            self.starts[seq] = self.starts.get(seq, 0) + 1
            assert self.starts[seq] == 1, "it started twice"
        self.prompt_tokens += self.draw.draw(st.integers(0, 8_000))
        self.set(seq, self.choose("succeeded", "succeeded", "failed", "executing"))

    def recover(self, calls: tuple[int, ...], attempt: int | None) -> None:
        for seq in calls:
            assert self.call(seq).status == "executing"
            self.set(seq, "ready" if self.call(seq).effect == "read" else "unknown")
        if attempt is not None:
            lost = Attempt(
                attempt, "failed", error_action="retry", error_kind="worker_lost", ended_at=self.now
            )
            self.items[-1] = lost

    def wait(self, until: datetime | None) -> None:
        if until is not None:
            assert until > self.now - timedelta(seconds=1), "parked until the past"
            self.now = max(self.now, until)
            return
        waiting = [call for call in self.calls() if call.status == "waiting"]
        assert waiting, "waits for a person without a question"
        call = self.draw.draw(st.sampled_from(waiting))
        if self.choose("approve", "reject") == "approve":
            self.approved.add(call.seq)
            self.set(call.seq, "ready")
        else:
            self.set(call.seq, "refused")


@given(
    data=st.data(),
    budget=st.sampled_from(["0.02", "0.10", "0.50", "2.00"]),
    tokens=st.integers(3_000, 300_000),
)
@settings(max_examples=300, deadline=None)
def test_it_ends_within_every_limit_whatever_happens(data: st.DataObject, budget: str, tokens: int) -> None:
    limits = Limits(steps=40, tool_calls=20, tokens=tokens, cost_usd=Decimal(budget), seconds=3_000)
    world = World(data, limits)
    finish = world.play()
    assert finish.status in {"succeeded", "stopped", "failed"}
    assert finish.status != "failed" or finish.explanation, "a failed run says what a person can do"
    assert world.cost <= limits.cost_usd
    assert world.tokens <= limits.tokens


def situation(*items: Item, **changes: object) -> Situation:
    base = Situation(History(items, 2_000), Limits(), Spent(), 4_000, 64_000, PRICES, START)
    return replace(base, **changes)  # type: ignore[arg-type]


def failure(seq: int, **fields: object) -> Attempt:
    values: dict[str, object] = {"error_action": "retry", "error_kind": "overloaded_error", "error": "Busy."}
    return Attempt(seq, "failed", ended_at=START, **(values | fields))  # type: ignore[arg-type]


def test_it_asks_the_model_first() -> None:
    move = decide(situation())
    assert isinstance(move, moves.CallModel)
    assert (move.attempt, move.final, move.max_tokens) == (1, False, 4_000)


def test_it_runs_reads_while_a_sibling_waits_but_holds_effects_back() -> None:
    calls = (Call(2, "waiting", "destructive"), Call(3, "ready", "read"), Call(4, "ready", "write"))
    assert decide(situation(Attempt(1, "succeeded", "tool_use", calls=calls))) == moves.RunTools((3,))
    calls = (Call(2, "waiting", "destructive"), Call(3, "succeeded", "read"), Call(4, "ready", "write"))
    assert isinstance(decide(situation(Attempt(1, "succeeded", "tool_use", calls=calls))), moves.Park)


def test_it_waits_longer_after_each_failure_and_as_long_as_the_server_asks() -> None:
    first = decide(situation(failure(1)))
    assert isinstance(first, moves.Park) and first.until == START + timedelta(seconds=1)
    second = decide(situation(failure(1), failure(2)))
    assert isinstance(second, moves.Park) and second.until == START + timedelta(seconds=2)
    asked = decide(situation(failure(1, retry_after_seconds=30.0)))
    assert isinstance(asked, moves.Park) and asked.until == START + timedelta(seconds=30)
    capped = decide(situation(failure(1, retry_after_seconds=86_400.0)))
    assert isinstance(capped, moves.Park) and capped.until == START + timedelta(minutes=15)


def test_it_gives_up_after_six_failures_and_says_so() -> None:
    finish = decide(situation(*(failure(n) for n in range(1, 7))))
    assert finish == moves.Finish("failed", "overloaded_error", "Busy. Tried 6 times.")


def test_deaths_of_workers_are_not_failures_of_the_model_but_end_a_run_that_kills_each_of_them() -> None:
    lost = [failure(n, error_kind="worker_lost", error="The worker ended.") for n in range(1, 20)]
    move = decide(situation(*lost))
    assert isinstance(move, moves.CallModel) and move.attempt == 20
    busy = [failure(20 + n) for n in range(5)]
    again = decide(situation(*busy, *lost))
    assert isinstance(again, moves.CallModel), "five overloads and many deaths are below both bounds"
    waits = decide(situation(*lost, *busy))
    assert isinstance(waits, moves.Park) and waits.until == START + timedelta(seconds=16)
    assert decide(situation(*lost, *busy, failure(25))) == moves.Finish(
        "failed", "overloaded_error", "Busy. Tried 6 times."
    )
    finish = decide(situation(*lost, failure(20, error_kind="worker_lost")))
    assert isinstance(finish, moves.Finish) and (finish.status, finish.reason) == ("failed", "worker_lost")
    assert finish.explanation.startswith("20 workers died in the middle of this turn.")


def test_it_gives_a_cut_off_answer_more_room_up_to_what_the_model_can_write() -> None:
    move = decide(situation(failure(1, error_kind="max_tokens")))
    assert isinstance(move, moves.CallModel) and move.max_tokens == 8_000
    move = decide(situation(failure(1, error_kind="max_tokens"), largest_answer=5_000))
    assert isinstance(move, moves.CallModel) and move.max_tokens == 5_000


@pytest.mark.parametrize(
    ("spent", "limit"),
    [
        (Spent(steps=60), "steps"),
        (Spent(tool_calls=40), "tool_calls"),
        (Spent(active_seconds=1_800), "seconds"),
        (Spent(tokens=599_000), "tokens"),
        (Spent(cost_usd=Decimal("1.99")), "cost_usd"),
    ],
)
def test_it_asks_for_a_summary_when_a_limit_is_reached(spent: Spent, limit: str) -> None:
    move = decide(situation(spent=spent))
    assert isinstance(move, moves.WrapUp) and move.limit == limit


def test_it_leaves_room_for_the_summary_it_will_ask_for() -> None:
    limits = Limits(cost_usd=Decimal("0.10"))
    move = decide(situation(limits=limits))
    assert isinstance(move, moves.CallModel) and move.reserved_usd is not None
    note = Note(2, "wrap_up:cost_usd", "No money.")
    after = situation(note, limits=limits, spent=Spent(cost_usd=move.reserved_usd))
    final = decide(after)
    assert isinstance(final, moves.CallModel) and final.final


def test_it_stops_with_the_reason_after_the_summary() -> None:
    note = Note(1, "wrap_up:steps", "The limit of 60 steps is reached.")
    answer = Attempt(2, "succeeded", "end_turn")
    expected = moves.Finish("stopped", "steps", "The limit of 60 steps is reached.")
    assert decide(situation(note, answer, spent=Spent(steps=61))) == expected


def test_it_asks_once_to_go_on_after_an_empty_answer() -> None:
    empty = Attempt(1, "succeeded", "end_turn", is_empty=True)
    assert decide(situation(empty)) == moves.Continue()
    again = decide(situation(empty, Note(2, "continue"), replace(empty, seq=3)))
    assert isinstance(again, moves.Finish) and again.reason == "empty_answer"


@pytest.mark.parametrize("reason", ["refusal", "model_context_window_exceeded", "something_new"])
def test_it_fails_with_a_sentence_on_stop_reasons_it_cannot_go_on_from(reason: str) -> None:
    finish = decide(situation(Attempt(1, "succeeded", reason)))
    assert isinstance(finish, moves.Finish) and finish.status == "failed" and finish.explanation.endswith(".")


def mark(seq: int, name: str = "resumed") -> Note:
    return Note(seq, name, has_words=False)


def test_a_pause_comes_before_any_move_but_the_last() -> None:
    asked = moves.Pause("asked", "Paused by olga.")
    calls = (Call(2, "ready", "read"), Call(3, "waiting", "destructive"))
    for items in [(), (Attempt(1, "succeeded", "tool_use", calls=calls),), (failure(1),)]:
        assert decide(replace(situation(*items), pause_asked_by="olga")) == asked
    answered = situation(Attempt(1, "succeeded", "end_turn"))
    assert decide(replace(answered, pause_asked_by="olga")) == moves.Finish("succeeded")


def test_what_a_person_found_is_told_before_the_next_request_and_before_the_last_answer_counts() -> None:
    unknown = Attempt(1, "succeeded", "tool_use", calls=(Call(2, "unknown", "write"),))
    open_read = replace(unknown, calls=(*unknown.calls, Call(3, "ready", "read")))
    answered = Attempt(4, "succeeded", "end_turn")
    for items in [(unknown,), (unknown, answered)]:
        assert decide(replace(situation(*items), untold=1)) == moves.Tell()
    assert decide(replace(situation(open_read), untold=1)) == moves.RunTools((3,))
    assert isinstance(decide(replace(situation(unknown, failure(4)), untold=1)), moves.Park)
    told = situation(unknown, answered, Note(5, "outcome:2"))
    assert isinstance(decide(told), moves.CallModel), "the model has the last word"


def test_a_resumed_run_goes_on_exactly_where_it_was() -> None:
    calls = (Call(2, "ready", "read"), Call(3, "executing", "destructive"))
    turn = Attempt(1, "succeeded", "tool_use", calls=calls)
    assert decide(situation(turn, mark(4))) == decide(situation(turn)) == moves.Recover(calls=(3,))
    streaming = Attempt(1, "running")
    assert decide(situation(streaming, mark(2))) == moves.Recover(attempt=1)
    assert decide(situation(Attempt(1, "succeeded", "end_turn"), mark(2))) == moves.Finish("succeeded")
    summary = (Note(1, "wrap_up:steps", "Enough."), mark(2), Attempt(3, "succeeded", "end_turn"), mark(4))
    assert decide(situation(*summary)) == moves.Finish("stopped", "steps", "Enough.")


def test_a_retried_run_forgets_its_failures_and_does_not_take_a_bad_turn_for_an_answer() -> None:
    failed = [failure(n, error_action="fail") for n in range(1, 7)]
    for items in [
        (*failed, mark(7, "retried")),
        (Attempt(1, "succeeded", "refusal"), mark(2, "retried")),
        (Attempt(1, "succeeded", "end_turn", is_empty=True), mark(2, "retried")),
        (Note(1, "wrap_up:steps", "Enough."), Attempt(2, "succeeded", "end_turn"), Note(3, "retried")),
    ]:
        move = decide(situation(*items))
        assert isinstance(move, moves.CallModel) and (move.attempt, move.final) == (1, False)


def test_an_empty_answer_is_asked_about_again_in_a_follow_up() -> None:
    empty = Attempt(4, "succeeded", "end_turn", is_empty=True)
    asked = (Note(1, "continue"), Attempt(2, "succeeded", "end_turn"), Note(3, "follow_up"), empty)
    assert decide(situation(*asked)) == moves.Continue()
