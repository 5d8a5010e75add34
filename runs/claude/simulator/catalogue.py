"""The models the simulator answers for, and what each accepts. Data, taken from the public model pages."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_DATE_SUFFIX = re.compile(r"-\d{8}$")


@dataclass(frozen=True)
class Model:
    """One model. `thinking`: accepted forms; `thinks`: whether it does when the request says nothing."""

    id: str
    line: str
    thinking: frozenset[str]
    thinks: bool
    shows_thinking: bool  # the default of `display`
    max_input_tokens: int = 1_000_000
    max_tokens: int = 128_000
    min_cached_tokens: int = 512
    released: str = "2026-01-01"

    def as_info(self) -> dict[str, Any]:
        """The body of `/v1/models/{id}`."""
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.id.replace("-", " ").title() + " (simulated)",
            "created_at": f"{self.released}T00:00:00Z",
            "lifecycle": "active",
            "line": self.line,
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "capabilities": self._capabilities(),
            "deprecated_at": None,
            "retires_at": None,
        }

    def _capabilities(self) -> dict[str, Any]:
        no = {"supported": False}
        forms = ("adaptive", "enabled", "disabled", "between_tools")
        edits = ("clear_tool_uses_20250919", "clear_thinking_20251015", "compact_20260112")
        searches = ("web_search", "web_fetch", "code_execution")
        return {
            "batch": no,
            "citations": no,
            "code_execution": no,
            "context_management": {"supported": False, **dict.fromkeys(edits, no)},
            "effort": {"supported": True, **{level: {"supported": True} for level in _EFFORTS}},
            "image_input": no,
            "pdf_input": no,
            "server_tools": {"supported": False, **dict.fromkeys(searches, no)},
            "structured_outputs": no,
            "thinking": {
                "supported": True,
                "types": {form: {"supported": form in self.thinking} for form in forms},
            },
        }


def _adaptive(id: str, line: str, *more: str, released: str, thinks: bool = True, cache: int = 512) -> Model:
    shows = not thinks and "4-7" not in id and "4-8" not in id
    return Model(id, line, frozenset({"adaptive", *more}), thinks, shows, 1_000_000, 128_000, cache, released)


def _budgeted(id: str, line: str, *, released: str) -> Model:
    return Model(id, line, frozenset({"enabled", "disabled"}), False, True, 200_000, 64_000, 4096, released)


_MODELS = [  # newest first, as the API lists them
    _adaptive("claude-fable-5-2", "fable", released="2026-10-21"),
    _adaptive("claude-mythos-5-2", "mythos", released="2026-10-21"),
    _adaptive("claude-haiku-5-5", "haiku", "disabled", released="2026-10-14"),
    _adaptive("claude-sonnet-5-5", "sonnet", "between_tools", released="2026-10-07"),
    _adaptive("claude-opus-5-5", "opus", released="2026-09-16"),
    _adaptive("claude-fable-5-1", "fable", released="2026-08-05"),
    _adaptive("claude-mythos-5-1", "mythos", released="2026-08-05"),
    _adaptive("claude-sonnet-5", "sonnet", "disabled", released="2026-06-10", cache=1024),
    _adaptive("claude-fable-5", "fable", released="2026-05-20", cache=2048),
    _adaptive("claude-mythos-5", "mythos", released="2026-05-20", cache=2048),
    _adaptive("claude-opus-5", "opus", "disabled", released="2026-05-06", cache=1024),
    _adaptive("claude-opus-4-8", "opus", "disabled", released="2026-03-18", thinks=False, cache=1024),
    _adaptive("claude-opus-4-7", "opus", "disabled", released="2026-02-11", thinks=False, cache=4096),
    _adaptive(
        "claude-opus-4-6", "opus", "enabled", "disabled", released="2026-02-05", thinks=False, cache=4096
    ),
    _adaptive(
        "claude-sonnet-4-6", "sonnet", "enabled", "disabled", released="2026-02-17", thinks=False, cache=1024
    ),
    _budgeted("claude-opus-4-5", "opus", released="2025-11-01"),
    _budgeted("claude-haiku-4-5", "haiku", released="2025-10-01"),
    _budgeted("claude-sonnet-4-5", "sonnet", released="2025-09-29"),
]
MODELS = {model.id: model for model in _MODELS}


def find(id: str) -> Model | None:
    """The model with this id, dated or not. Any other `claude-…` id behaves like the newest Sonnet."""
    known = MODELS.get(id) or MODELS.get(_DATE_SUFFIX.sub("", id))
    if known is None and id.startswith("claude-"):
        known = MODELS["claude-sonnet-5-5"]
    return replace(known, id=id) if known is not None else None
