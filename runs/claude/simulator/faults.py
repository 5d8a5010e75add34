"""Faults on request: what to do wrong in the answer to which request.

A fault is a word, mostly with a number, and options:

    status 529 [retry-after=SECONDS] [type=NAME] [code=NAME]   answer with this HTTP status
    slow SECONDS                 say nothing for so long before the answer
    stall EVENT [seconds=N]      fall silent before this event (default: until the client leaves)
    drop EVENT                   cut the connection before this event
    eof EVENT                    end the body properly before this event
    error EVENT [type=NAME]      send an in-stream error instead of this event (default overloaded_error)
    refusal                      stop_reason refusal with stop_details
    max_tokens [tool|text]       the output limit is hit inside a tool call (default) or a text
    pause_turn                   a server tool's pause: the turn has to be continued
    empty                        end_turn without any content
    bad_json [cut]               a tool call whose input is not JSON, or (cut) ends in the middle
    stop_reason NAME             this stop reason instead of the right one
    block NAME                   an additional content block of this type
    event NAME                   an additional stream event of this type
    redacted                     the thinking comes as redacted_thinking

Events count from 0, message_start included. A script gives faults to requests by their number:
`1: status 529; 3-4: drop 5; *: slow 0.2`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_AT_EVENT = {"stall", "drop", "eof", "error"}
_NUMBERED = {"status", "slow", *_AT_EVENT}
_OTHERS = {"refusal", "max_tokens", "pause_turn", "empty", "bad_json"}
_NAMED = {"stop_reason", "block", "event"}
_KINDS = _NUMBERED | _OTHERS | _NAMED | {"redacted"}
_RULE = re.compile(r"^(?:(?P<first>\d+)(?:-(?P<last>\d+))?|\*)\s*:\s*(?P<fault>\S.*)$", re.DOTALL)


@dataclass(frozen=True)
class Fault:
    """One fault, e.g. Fault("status", "429", {"retry-after": "2"})."""

    kind: str
    argument: str = ""
    options: dict[str, str] = field(default_factory=dict)

    def breaks_at(self, event: int) -> bool:
        """Whether it disturbs the stream at this event."""
        return self.kind in _AT_EVENT and event == int(self.argument)

    @property
    def number(self) -> float:
        """The argument as a number; 0 without one."""
        return float(self.argument or 0)


@dataclass(frozen=True)
class Rule:
    """A fault for the messages requests `first` to `last`, counted from 1; None means without end."""

    first: int
    last: int | None
    fault: Fault


def parse_fault(text: str) -> Fault:
    """One fault from its text. Raises ValueError with a sentence that says what is wrong."""
    words = text.replace(":", " ", 1).split()
    if not words or words[0] not in _KINDS:
        raise ValueError(f"Unknown fault {text!r}. Known are: {', '.join(sorted(_KINDS))}.")
    kind, options, arguments = words[0], {}, []
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if equals:
            options[name] = value
        else:
            arguments.append(word)
    argument = arguments[0] if arguments else ""
    if len(arguments) > 1 or (kind in _NAMED and not argument):
        raise ValueError(f"The fault {text!r} needs one word after {kind!r}.")
    if kind in _NUMBERED and not re.fullmatch(r"\d+(\.\d+)?" if kind == "slow" else r"\d+", argument):
        raise ValueError(f"The fault {text!r} needs a number after {kind!r}.")
    return Fault(kind, argument, options)


def parse_script(text: str) -> list[Rule]:
    """The rules of a script, in order; the first one that fits a request counts. Raises ValueError."""
    rules = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        match = _RULE.match(part)
        if match is None:
            raise ValueError(f"A rule is 'NUMBER: FAULT', for example '2: status 529', not {part!r}.")
        first = int(match["first"] or 1)
        last = int(match["last"] or first) if match["first"] else None
        rules.append(Rule(first, last, parse_fault(match["fault"])))
    return rules


def fault_for(rules: list[Rule], number: int) -> Fault | None:
    """The fault for the messages request with this number, counted from 1."""
    for rule in rules:
        if rule.first <= number and (rule.last is None or number <= rule.last):
            return rule.fault
    return None
