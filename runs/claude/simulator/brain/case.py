"""The conversation as the investigator sees it: the question, the tools, and every result so far."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from runs.claude.simulator.answer import Call
from runs.claude.simulator.brain import evidence, knowledge
from runs.claude.simulator.brain.evidence import Deployment, Observation, Pattern, Reading
from runs.claude.simulator.wire import blocks, canonical

REMEDIES = frozenset({"restart_connection_pool", "scale_service", "revert_deployment"})
READERS = frozenset({"search_logs", "get_metrics", "list_recent_deployments"})
TICKET = "create_incident_ticket"
CAME_BACK = "It came back"  # how a follow-up question about a relapse begins
# How a call ends that the engine answers because it never ran.
REFUSALS = frozenset({"rejected", "revoked", "denied", "expired", "cancelled"})


@dataclass(frozen=True)
class Case:
    """Everything known when a turn begins. Facts that follow from it are computed once."""

    question: str
    tools: frozenset[str]
    may_call: bool
    turn: int  # the number of the turn that is being written, from 1
    observations: tuple[Observation, ...]
    came_back: int = 0  # the last turn before somebody said that it came back

    @cached_property
    def symptom(self) -> knowledge.Symptom | None:
        """What the question is about; None when it is not understood."""
        return knowledge.symptom_of(self.question)

    @cached_property
    def patterns(self) -> list[Pattern]:
        """Log patterns of all searches, most frequent first, each once."""
        found: dict[tuple[str, tuple[str, ...]], Pattern] = {}
        for observation in self.results_of("search_logs"):
            for pattern in evidence.patterns(observation):
                found.setdefault((pattern.text, pattern.services), pattern)
        return sorted(found.values(), key=lambda pattern: -pattern.count)

    @cached_property
    def deployments(self) -> list[Deployment]:
        """All deployments that were listed, newest first, each once, as the latest listing has them."""
        found: dict[str, Deployment] = {}
        for observation in self.results_of("list_recent_deployments"):
            found.update({deployment.id: deployment for deployment in evidence.deployments(observation)})
        return sorted(found.values(), key=lambda one: one.at.timestamp() if one.at else 0.0, reverse=True)

    @cached_property
    def readings(self) -> list[Reading]:
        """Every series that was read, in order."""
        return [
            reading
            for observation in self.results_of("get_metrics")
            for reading in evidence.readings(observation)
        ]

    @cached_property
    def services(self) -> list[str]:
        """Every service seen in a result: those with most error lines first."""
        weight: Counter[str] = Counter()
        for pattern in self.patterns:
            for service in pattern.services:
                weight[service] += pattern.count if pattern.is_failure else 0
        read = [reading.service for reading in self.readings]
        for service in [*read, *self.catalogue, *(one.service for one in self.deployments)]:
            weight[service] += 0
        return [service for service, _ in weight.most_common() if service]

    @cached_property
    def catalogue(self) -> list[str]:
        """The services that a tool listed when it was asked for one that does not exist."""
        for observation in self.observations:
            listed = observation.data.get("services")
            if observation.error_kind == "unknown_service" and isinstance(listed, list):
                return [str(service) for service in listed]
        return []

    @property
    def unknown_services(self) -> set[str]:
        """Names that were tried and do not exist."""
        unknown = (one for one in self.observations if one.error_kind == "unknown_service")
        return {str(one.input.get("service_name") or one.input.get("service") or "") for one in unknown}

    @property
    def remedies(self) -> list[Observation]:
        """The remediations proposed so far, whatever became of them."""
        return [one for one in self.observations if one.name in REMEDIES]

    @property
    def tickets(self) -> list[Observation]:
        return [one for one in self.results_of(TICKET) if not one.is_error]

    def at_decision(self) -> Case:
        """The case as it was when the last remediation was proposed: after a fix the signs are gone."""
        if not self.remedies:
            return self
        last = self.remedies[-1].turn
        earlier = tuple(one for one in self.observations if one.turn < last)
        return replace(self, observations=earlier, turn=last)

    def results_of(self, tool: str) -> Iterator[Observation]:
        """The results of one tool, in order, failed ones included."""
        return (one for one in self.observations if one.name == tool)

    def latest(self, service: str, metric: str, label: str = "") -> Reading | None:
        """The newest reading of a metric."""
        for reading in reversed(self.readings):
            if (reading.service, reading.metric, reading.label) == (service, metric, label):
                return reading
        return None

    def was_asked(self, call: Call, since_turn: int = 0) -> bool:
        """Whether exactly this call was made already, after the given turn."""
        wanted = canonical(call.input)
        return any(
            one.name == call.name and one.turn > since_turn and canonical(dict(one.input)) == wanted
            for one in self.observations
        )

    def fresh(self, calls: list[Call], limit: int = 3) -> tuple[Call, ...]:
        """Those of the calls that can be made and were not made before, at most `limit`."""
        possible = [call for call in calls if call.name in self.tools and not self.was_asked(call)]
        return tuple(possible[:limit])


def read(body: Mapping[str, Any]) -> Case:
    """The case that a request presents. Reads any conversation of the API, whatever its tools."""
    choice = body.get("tool_choice") or {"type": "auto"}
    tools = frozenset(str(tool["name"]) for tool in body.get("tools") or [])
    return Case(
        question=_question(body["messages"]),
        tools=tools,
        may_call=bool(tools) and choice["type"] != "none",
        turn=1 + sum(message["role"] == "assistant" for message in body["messages"]),
        observations=tuple(_observations(body["messages"])),
        came_back=_came_back(body["messages"]),
    )


def _came_back(messages: list[Mapping[str, Any]]) -> int:
    turn = found = 0
    for message in messages:
        turn += message["role"] == "assistant"
        for block in blocks(message["content"]) if message["role"] == "user" and turn else ():
            if block["type"] == "text" and str(block["text"]).startswith(CAME_BACK):
                found = turn
    return found


def _question(messages: list[Mapping[str, Any]]) -> str:
    """The first text of the user. What follows it is the setting, and later notices."""
    for message in messages:
        for block in blocks(message["content"]):
            if message["role"] == "user" and block["type"] == "text":
                return str(block["text"])
    return ""


def _observations(messages: list[Mapping[str, Any]]) -> Iterator[Observation]:
    turn, calls = 0, dict[str, tuple[int, str, Mapping[str, Any]]]()
    for message in messages:
        turn += message["role"] == "assistant"
        for block in blocks(message["content"]):
            if block["type"] == "tool_use":
                calls[block["id"]] = (turn, str(block["name"]), block["input"])
            elif block["type"] == "tool_result" and block["tool_use_id"] in calls:
                made, name, arguments = calls[block["tool_use_id"]]
                failed = bool(block.get("is_error"))
                yield Observation(made, name, arguments, _envelope(block.get("content")), failed)


def _envelope(content: Any) -> Mapping[str, Any]:
    text = "".join(str(block.get("text", "")) for block in blocks(content))
    try:
        envelope = json.loads(text)
    except ValueError:
        envelope = None
    return envelope if isinstance(envelope, dict) else {"summary": text[:300]}
