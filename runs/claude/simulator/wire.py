"""The body of a Messages request as the parts of the simulator read it, and the errors they answer with."""

from __future__ import annotations

import json
from typing import Any


class ApiError(Exception):
    """An error answer of the Messages API."""

    def __init__(self, status: int, type: str, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.code = code

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON body, as the API writes it."""
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.code:
            error["details"] = {"error_code": self.code}
        return {"type": "error", "error": error, "request_id": request_id}


def invalid(message: str) -> ApiError:
    """A 400 with this message."""
    return ApiError(400, "invalid_request_error", message)


TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def blocks(content: Any) -> list[dict[str, Any]]:
    """Content as a list of blocks: the API reads a plain string as one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])


def without_marker(block: dict[str, Any]) -> dict[str, Any]:
    """A block without its cache marker, which is no part of what the model reads."""
    return {name: value for name, value in block.items() if name != "cache_control"}


def canonical(value: Any) -> bytes:
    """The same bytes for the same JSON value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def tokens(text: str) -> int:
    """A cheap, deterministic stand-in for a tokenizer: four bytes of UTF-8 are one token."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)
