"""Advice on caching: what it saved and cost, what a longer life would change, what could be cached at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

from runs.claude.simulator.catalogue import MODELS
from runs.money import MILLION
from runs.reading.advice.attempts import FEWEST_RUNS, Attempt, Looked
from runs.reading.advice.suggestions import Advice, missing, most, percent, usd

SHORT, LONG = timedelta(minutes=5), timedelta(minutes=60)
FEWEST_PAUSES = 5
ZERO = Decimal(0)


def caching_advice(looked: Looked) -> Iterator[Advice]:
    """Each with its arithmetic; calls without a price are left out."""
    yield _balance(looked)
    yield _longer_life(looked)
    yield _uncached(looked)


def written(attempt: Attempt) -> int:
    """Tokens that went into the cache."""
    return attempt.usage.cache_write_5m_tokens + attempt.usage.cache_write_1h_tokens


def unread_tokens(attempts: list[Attempt]) -> int:
    """What a run wrote into the cache and no later call of it read.

    After a call the cache holds what it read and wrote. A later call that reads so many tokens reads the
    beginning of that.
    """
    unread, furthest = 0, 0  # the most that any later call read
    for attempt in reversed(attempts):
        read = attempt.usage.cache_read_tokens
        end = read + written(attempt)
        unread += end - max(read, min(end, furthest))
        furthest = max(furthest, read)
    return unread


def _balance(looked: Looked) -> Advice:
    title = "What caching costs and saves"
    premium, saved, tokens_written, tokens_read, unread = ZERO, ZERO, 0, 0, 0
    writing: dict[int, int] = {}
    for run, attempts in looked.attempts.items():
        priced = [attempt for attempt in attempts if attempt.prices is not None]
        for attempt in priced:
            premium += _premium(attempt)
            saved += _saved(attempt)
            tokens_written += written(attempt)
            tokens_read += attempt.usage.cache_read_tokens
        if any(map(written, priced)):
            writing[run] = unread_tokens(priced)
            unread += writing[run]
    if len(writing) < FEWEST_RUNS:
        return missing(title, len(writing), "runs that wrote into the cache")
    sums = (
        f"{tokens_read:,} tokens read, at the price of a read instead of input: {usd(saved)} saved",
        f"{tokens_written:,} tokens written, at the price of a write instead of input: {usd(premium)} more",
        f"{usd(saved)} − {usd(premium)} = {usd(saved - premium)}",
        f"{unread:,} of {tokens_written:,} written tokens ({percent(unread, tokens_written)}) were read by "
        "no later call of their run; other runs with the same beginning may have read some of them",
    )
    runs = most(looked, writing)
    if saved < premium:
        says = "Writing into the cache cost more than reading saved: these runs are cheaper without caching."
        return Advice("do", title, says, sums, runs)
    if unread > tokens_written / 2:
        says = (
            "Caching pays, but most of what is written is never read. Fewer marks in the conversation, or "
            "only one behind tools and instructions, would write less."
        )
        return Advice("do", title, says, sums, runs)
    return Advice("fine", title, "Caching pays. Nothing to change.", sums)


def _longer_life(looked: Looked) -> Advice:
    """What was written again after a pause longer than five minutes and no longer than an hour."""
    title = "How long the cache lives"
    pauses, again, lost, more = 0, 0, ZERO, ZERO
    by_run: dict[int, Decimal] = defaultdict(lambda: ZERO)
    for attempt in looked.all:
        if attempt.prices is not None:
            dearer = attempt.prices.cache_write_1h - attempt.prices.cache_write_5m
            more += attempt.usage.cache_write_5m_tokens * dearer / MILLION
    for run, attempts in looked.attempts.items():
        for before, after in pairwise(attempts):
            if after.prices is None or not SHORT < after.started_at - before.started_at <= LONG:
                continue
            held = before.usage.cache_read_tokens + before.usage.cache_write_5m_tokens
            rewritten = min(after.usage.cache_write_5m_tokens, held - after.usage.cache_read_tokens)
            if rewritten <= 0:
                continue
            cost = rewritten * (after.prices.cache_write_5m - after.prices.cache_read) / MILLION
            pauses, again, lost = pauses + 1, again + rewritten, lost + cost
            by_run[run] += cost
    if len(looked.runs) < FEWEST_RUNS:
        return missing(title, len(looked.runs), "ended runs")
    if pauses < FEWEST_PAUSES:
        says = (
            f"After {pauses} pauses of 5 to 60 minutes a cached beginning was written again. It takes at "
            f"least {FEWEST_PAUSES} to compare 5 minutes with an hour."
        )
        return Advice("missing", title, says)
    sums = (
        f"5 minutes: {again:,} tokens were written again after {pauses} pauses instead of read: "
        f"{usd(lost)} more",
        f"1 hour: every 5-minute write at the price of a 1-hour write, {usd(more)} more, and those "
        "tokens would have been read",
        f"{usd(lost)} − {usd(more)} = {usd(lost - more)} saved by 1 hour",
    )
    runs = most(looked, dict(by_run))
    if lost > more:
        return Advice("do", title, "Writing for an hour would have been cheaper.", sums, runs)
    return Advice("fine", title, "Writing for 5 minutes is the cheaper one. Nothing to change.", sums, runs)


def _uncached(looked: Looked) -> Advice:
    """Conversations of several calls that never touched the cache: too short, or nothing was marked."""
    title = "What is not cached"
    short, short_runs, possible, tokens = 0, 0, ZERO, 0
    several = {run: attempts for run, attempts in looked.attempts.items() if len(attempts) > 1}
    by_run: dict[int, Decimal] = {}
    for run, attempts in several.items():
        if any(written(attempt) or attempt.usage.cache_read_tokens for attempt in attempts):
            continue
        below = [attempt for attempt in attempts if attempt.usage.prompt_tokens < minimum(attempt.model)]
        short, short_runs = short + len(below), short_runs + bool(below)
        saving, read = _if_cached(attempts)
        if saving > 0:
            by_run[run] = saving
            possible, tokens = possible + saving, tokens + read
    if len(several) < FEWEST_RUNS:
        return missing(title, len(several), "runs with several calls")
    sums = [
        f"{tokens:,} tokens of {len(by_run)} runs were sent again at the price of input; written once and "
        f"then read from the cache they would have cost {usd(possible)} less"
    ]
    if short:
        sums.append(
            f"{short:,} calls of {short_runs} runs had a prompt below the smallest that their model caches: "
            "nothing can be saved there"
        )
    if possible > 0:
        says = "Conversations are sent again uncached. Mark the end of instructions and of the last message."
        return Advice("do", title, says, tuple(sums), most(looked, by_run))
    says = (
        "Nothing that could be cached is sent uncached."
        if not short
        else "Prompts are too short to be cached."
    )
    return Advice("fine", title, says, tuple(sums[1:]))


def minimum(model: str) -> int:
    """The smallest prompt that this model caches, in tokens; of an unknown model, the smallest of all."""
    names = [name for name in MODELS if model == name or model.startswith(f"{name}-")]
    known = [MODELS[max(names, key=len)]] if names else MODELS.values()
    return min(one.min_cached_tokens for one in known)


def _if_cached(attempts: list[Attempt]) -> tuple[Decimal, int]:
    """What a run would have saved whose calls write what is new and read the rest, and the tokens read."""
    saving, read, held, last = ZERO, 0, 0, None
    for attempt in attempts:
        if attempt.prices is None:
            continue
        prompt = attempt.usage.input_tokens
        if prompt < minimum(attempt.model):
            continue
        if last is not None and attempt.started_at - last > SHORT:
            held = 0
        from_cache = min(held, prompt)
        units = attempt.prices
        saving += from_cache * (units.input - units.cache_read) / MILLION
        saving -= (prompt - from_cache) * (units.cache_write_5m - units.input) / MILLION
        read, held, last = read + from_cache, prompt, attempt.started_at
    return saving, read


def _premium(attempt: Attempt) -> Decimal:
    units, usage = attempt.prices, attempt.usage
    assert units is not None
    five = usage.cache_write_5m_tokens * (units.cache_write_5m - units.input)
    return (five + usage.cache_write_1h_tokens * (units.cache_write_1h - units.input)) / MILLION


def _saved(attempt: Attempt) -> Decimal:
    assert attempt.prices is not None
    return attempt.usage.cache_read_tokens * (attempt.prices.input - attempt.prices.cache_read) / MILLION
