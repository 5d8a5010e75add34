"""What an agent is: a named configuration of model, instructions, tools and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from tools import registry

PER_TOOL = "calls_per_tool"  # the limit that holds a number for each tool


@dataclass(frozen=True)
class Limits:
    """What one run may use. `seconds` does not count the time it waits for people.

    `calls_per_tool` bounds single tools by name. `repeats` is how many turns in a row may ask only for
    what was answered already. Near `context_tokens` (0: what the model can read) a run hands over to a new
    one, which takes what is left of these limits; a chain does so `hand_overs` times at most.
    """

    steps: int = 60
    tool_calls: int = 40
    tokens: int = 600_000
    cost_usd: Decimal = Decimal("2.00")
    seconds: int = 1800
    calls_per_tool: Mapping[str, int] = field(default_factory=dict)
    repeats: int = 3
    context_tokens: int = 0
    hand_overs: int = 5

    def as_data(self) -> dict[str, Any]:
        """JSON-ready; the amount as text, so that it stays exact."""
        return asdict(self) | {"cost_usd": str(self.cost_usd)}

    @staticmethod
    def from_data(data: dict[str, Any]) -> Limits:
        """The limits as they were frozen in a run."""
        return Limits(**(data | {"cost_usd": Decimal(data["cost_usd"])}))


@dataclass(frozen=True)
class Agent:
    """One agent of this installation."""

    name: str
    description: str
    instructions: str
    tools: tuple[str, ...]
    model: str = "claude-sonnet-5-5"
    effort: str = "medium"
    max_tokens: int = 16_000
    largest_answer: int = 64_000  # tokens; a cut-off answer is asked for again with more room, up to this
    environment: str = "production"
    limits: Limits = field(default_factory=Limits)
    at_limit: str = "wrap_up"  # or "pause": a person is asked to raise the limit

    def __post_init__(self) -> None:
        """Raises ValueError, with a sentence, for a limit on a tool that this agent does not have."""
        unknown = sorted(set(self.limits.calls_per_tool) - set(self.tools))
        if unknown:
            raise ValueError(
                f"The agent {self.name!r} limits calls of {', '.join(unknown)}, but its tools are "
                f"{', '.join(sorted(self.tools))}."
            )

    def configuration(self, *, world: str) -> str:
        """Everything a request of this agent is made of, as exact JSON text. It is frozen in the run.

        The order of keys and tools is fixed: a newer model refuses history whose prefix changed.
        """
        definitions = [registry.TOOLS[name].definition() for name in sorted(self.tools)]
        return json.dumps(
            {
                "agent": self.name,
                "model": self.model,
                "max_tokens": self.max_tokens,
                "largest_answer": self.largest_answer,
                "system": [{"type": "text", "text": self.instructions}],
                "tools": definitions,
                "thinking": {"type": "adaptive", "display": "summarized"},
                "effort": self.effort,
                "limits": self.limits.as_data(),
                "at_limit": self.at_limit,
                "environment": self.environment,
                "world": world,
            },
            ensure_ascii=False,
        )


def installed() -> dict[str, Agent]:
    """The agents of this installation by name; the first one is the default."""
    agents: list[Agent] = import_string(settings.AGENTS)
    return {agent.name: agent for agent in agents}
