"""Which model answers a run: Claude with a key, the simulator without one."""

from __future__ import annotations

import atexit
import threading

from anthropic import Anthropic
from django.conf import settings

from runs.claude import connect
from runs.claude.simulator import Simulator


class NoModel(Exception):
    """No model can answer; the message says what to set."""


_lock = threading.Lock()
_clients: dict[bool, Anthropic] = {}
_simulators: list[Simulator] = []


def connection(*, simulated: bool) -> Anthropic:
    """The client of this process, made on first use. A run stays with the kind of model it began with.

    Raises NoModel with a sentence for a person.
    """
    with _lock:
        if simulated not in _clients:
            _clients[simulated] = _connect_simulator() if simulated else _connect_claude()
        return _clients[simulated]


def check_available() -> None:
    """Raises NoModel when new runs could not be answered; makes no connection."""
    try:
        Simulator(faults=settings.AGENTOPS_SIMULATOR_FAULTS)
    except ValueError as error:
        raise NoModel(f"AGENTOPS_SIMULATOR_FAULTS cannot be read: {error}") from error
    if not settings.ANTHROPIC_API_KEY and not settings.AGENTOPS_SIMULATOR:
        raise NoModel(
            "There is no model to ask. Set ANTHROPIC_API_KEY to use Claude, or leave AGENTOPS_SIMULATOR "
            "on to try agentops with the local simulator."
        )


def _connect_claude() -> Anthropic:
    if not settings.ANTHROPIC_API_KEY:
        raise NoModel("This run was started with Claude. Set ANTHROPIC_API_KEY and resume it.")
    return connect(api_key=settings.ANTHROPIC_API_KEY, base_url=settings.ANTHROPIC_BASE_URL)


def _connect_simulator() -> Anthropic:
    if not settings.AGENTOPS_SIMULATOR:
        raise NoModel("This run was started with the simulator. Set AGENTOPS_SIMULATOR=1 and resume it.")
    simulator = Simulator(pace=settings.AGENTOPS_PACE, faults=settings.AGENTOPS_SIMULATOR_FAULTS)
    url = simulator.start()
    _simulators.append(simulator)
    atexit.register(simulator.stop)
    return connect(api_key="simulator", base_url=url)


def disconnect() -> None:
    """Close the clients and stop the simulator of this process."""
    with _lock:
        for client in _clients.values():
            client.close()
        _clients.clear()
        while _simulators:
            simulator = _simulators.pop()
            atexit.unregister(simulator.stop)
            simulator.stop()
