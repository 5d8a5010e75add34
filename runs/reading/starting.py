"""What a run can be started with: agents and simulated incidents."""

from __future__ import annotations

from runs import agents
from tools.backends import estate


def agent_choices() -> list[tuple[str, str]]:
    """The installed agents for a select, the default first."""
    return [(agent.name, f"{agent.name} · {agent.model}") for agent in agents.installed().values()]


def scenario_choices() -> list[tuple[str, str]]:
    """Simulated incidents for a select; the empty one takes whichever fits the question."""
    return [("", "whichever fits the question"), *((item.id, item.title) for item in estate.scenarios())]
