"""What a run can be started with: agents and simulated incidents."""

from __future__ import annotations

from dataclasses import dataclass

from runs import agents
from tools.backends import estate

SHOWN = 90


@dataclass(frozen=True)
class AgentChoice:
    """An agent as the form describes it."""

    name: str
    description: str
    model: str
    budget: str


def agent_list() -> list[AgentChoice]:
    """The installed agents, the default first."""
    return [
        AgentChoice(agent.name, agent.description, agent.model, f"${agent.limits.cost_usd}")
        for agent in agents.installed().values()
    ]


def agent_choices() -> list[tuple[str, str]]:
    """Agents for a select."""
    return [(agent.name, f"{agent.name} · {agent.model}") for agent in agent_list()]


def scenario_choices() -> list[tuple[str, str]]:
    """Simulated incidents for a select; the empty one takes whichever fits the question."""
    return [("", "whichever fits the question"), *((item.id, item.title) for item in estate.scenarios())]
