"""The scenarios of this installation, one literal list, and which of them a question is about."""

from __future__ import annotations

import re

from tools.estate.scenario import Scenario
from tools.estate.scenarios import bad_release, noisy_healthy, pool_leak, quiet

QUIET = quiet.SCENARIO
SCENARIOS: dict[str, Scenario] = {
    scenario.id: scenario
    for scenario in (pool_leak.SCENARIO, bad_release.SCENARIO, noisy_healthy.SCENARIO, QUIET)
}
# Words that say nothing about which alert it is.
_COMMON = frozenset(
    (
        "a",
        "an",
        "and",
        "are",
        "at",
        "by",
        "for",
        "from",
        "in",
        "is",
        "it",
        "of",
        "on",
        "our",
        "the",
        "to",
        "why",
    )
)


def match(text: str) -> Scenario:
    """The scenario whose alert fits the text best; the quiet one when none fits by at least two words."""
    words = set(re.findall(r"[a-z0-9]+", text.lower())) - _COMMON
    best, best_score = QUIET, 0.0
    for scenario in SCENARIOS.values():
        known = set(scenario.alert_words.split())
        alert = set(re.findall(r"[a-z0-9]+", scenario.alert.lower())) - _COMMON
        shared = words & known
        if len(shared) < 2 or scenario is QUIET:
            continue
        score = len(shared) + 2 * len(words & alert) / max(1, len(alert))
        if score > best_score:
            best, best_score = scenario, score
    return best
