"""A local Messages API: the real SDK talks to it over HTTP when there is no API key.

Everything it says is made by rules (`brain`), and every id carries `_sim_`. It checks requests as
strictly as the API does, so that what works here is well-formed there.
"""

from __future__ import annotations

from runs.claude.simulator.server import Simulator

__all__ = ["Simulator"]
