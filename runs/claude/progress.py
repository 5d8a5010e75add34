"""What is known of a turn while it streams: for drafts, for partial costs, and to check it at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from runs.claude.turn import Draft
from runs.claude.usage import merge_usage

# Characters that PostgreSQL text or UTF-8 cannot hold. Display only: the message keeps them, escaped.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

MOST_TOKENS = 10**9  # of one turn; no model reads or writes so many
_PARTS = frozenset({"cache_creation", "output_tokens_details", "server_tool_use"})


def is_countable(usage: Any) -> bool:
    """Whether usage as the API says it can be booked: objects where they belong, numbers within reason."""
    return isinstance(usage, Mapping) and all(_fits(str(name), value) for name, value in usage.items())


def _fits(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name.endswith(("_tokens", "_requests")):
        return isinstance(value, int) and 0 <= value <= MOST_TOKENS
    if name == "iterations":
        return isinstance(value, list) and all(is_countable(each) for each in value)
    return name not in _PARTS or is_countable(value)


def joined(parts: Iterable[str]) -> str:
    """Block texts as one text for display and storage, without characters a database refuses."""
    return _UNSTORABLE.sub("\ufffd", "\n\n".join(part for part in parts if part))


class Progress:
    """Takes SDK stream events one by one; ignores what it does not know."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] | None = None
        self.output_characters = 0
        self.api_request_id = ""
        self.begun = False  # an answer came, whatever is in it
        self.stopped = False  # message_stop was seen
        self.in_tool_input = False
        self._reasoning: list[str] = []
        self._text: list[str] = []
        self._tool_name = ""
        self._inputs: dict[int, str] = {}

    @property
    def usage(self) -> dict[str, Any] | None:
        """What was reported so far, in the field names of the API; None before anything was, or
        when nobody can count it.

        Put together as `merge_usage` says.
        """
        return self._usage if is_countable(self._usage) else None

    @property
    def draft(self) -> Draft:
        """A snapshot for display."""
        return Draft(joined(self._reasoning), joined(self._text), self._tool_name)

    def take(self, event: Any) -> None:
        """Account for one event. The SDK's own derived events repeat the raw ones and are ignored."""
        if event.type == "message_start":
            self._usage = None
            self._report(event.message.usage)
        elif event.type == "message_delta":
            self._report(event.usage)
        elif event.type == "message_stop":
            self.stopped = True
        elif event.type == "content_block_start":
            self._start(event.index, event.content_block)
        elif event.type == "content_block_delta":
            self._grow(event.index, event.delta)
        elif event.type == "content_block_stop":
            self._tool_name = ""
            self.in_tool_input = False

    def _report(self, usage: Any) -> None:
        """Take a copy now: the SDK writes what a message_delta says into the usage of message_start."""
        if hasattr(usage, "to_dict"):
            reported = usage.to_dict(mode="json", warnings=False)
            self._usage = merge_usage(self._usage or {}, reported)

    def inputs_are_whole(self) -> bool:
        """Whether every tool input is a complete JSON object.

        The SDK completes a cut-off input to something plausible, so its own result cannot tell.
        """
        return all(_is_object(text) for text in self._inputs.values())

    def _start(self, index: int, block: Any) -> None:
        if block.type == "thinking":
            self._reasoning.append("")
        elif block.type == "text":
            self._text.append("")
        elif block.type == "tool_use":
            self._tool_name = str(block.name)
            self._inputs[index] = ""
            self.in_tool_input = True

    def _grow(self, index: int, delta: Any) -> None:
        if delta.type == "thinking_delta" and self._reasoning:
            self._reasoning[-1] += delta.thinking
            self.output_characters += len(delta.thinking)
        elif delta.type == "text_delta" and self._text:
            self._text[-1] += delta.text
            self.output_characters += len(delta.text)
        elif delta.type == "input_json_delta":
            if index in self._inputs:
                self._inputs[index] += delta.partial_json
            self.output_characters += len(delta.partial_json)


def _is_object(text: str) -> bool:
    if not text:
        return True  # a call without arguments
    try:
        return isinstance(json.loads(text, parse_constant=_refuse), dict)
    except ValueError:
        return False


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
