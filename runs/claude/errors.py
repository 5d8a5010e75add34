"""Every way a model turn can fail, mapped to what the run should do and a sentence for a person.

TurnFailed   the turn was not received; `action` says what to do with the run
  retry        the same request may succeed later: overload, lost connection, truncated stream
  pause        a person has to act first, then the same request works: billing, spend limits
  fail         this request can never work: wrong key, unknown model, invalid request
Stopped      the caller asked to stop in the middle of the stream
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

import anthropic
import httpx2

Action = Literal["retry", "pause", "fail"]


class TurnFailed(Exception):
    """A model turn that was not received in full.

    `kind` is a stable word for queries, `sentence` tells a person what happened and what to do,
    `retry_after` is the wait the API asked for (seconds, uncapped; None when it asked for none),
    `usage` is what the API had reported before the failure (None when nothing), `output_characters`
    counts what was received and thrown away, for an estimate of what was billed.
    """

    def __init__(
        self,
        action: Action,
        kind: str,
        sentence: str,
        *,
        retry_after: float | None = None,
        usage: dict[str, Any] | None = None,
        output_characters: int = 0,
        api_request_id: str = "",
    ) -> None:
        super().__init__(sentence)
        self.action = action
        self.kind = kind
        self.sentence = sentence
        self.retry_after = retry_after
        self.usage = usage
        self.output_characters = output_characters
        self.api_request_id = api_request_id


class Stopped(Exception):
    """`should_stop` became true in the middle of a turn; what was received is thrown away.

    Carries the same partial facts as `TurnFailed`, because what was generated may be billed.
    """

    def __init__(
        self, *, usage: dict[str, Any] | None = None, output_characters: int = 0, api_request_id: str = ""
    ) -> None:
        super().__init__("The turn was stopped before it was complete.")
        self.usage = usage
        self.output_characters = output_characters
        self.api_request_id = api_request_id


class _Rule(NamedTuple):
    action: Action
    kind: str
    sentence: str


_SPEND = _Rule(
    "pause",
    "spend_limit",
    "The spend limit of the Anthropic account is reached. Raise it in the Console, then resume the run.",
)
_TOO_LONG = _Rule(
    "fail",
    "prompt_too_long",
    "The conversation is longer than the model can read (400). Start a new run with a narrower question.",
)
# Codes that come with 402 or 429 but do not go away by waiting.
_SPEND_CODES = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "user_profile_not_billable",
    }
)
_RULES = {
    400: _Rule(
        "fail",
        "invalid_request",
        "Claude refused the request as invalid (400). The same request cannot work; look at the message "
        "and at the agent's configuration.",
    ),
    401: _Rule(
        "fail",
        "authentication",
        "The API key was refused (401). Set a valid ANTHROPIC_API_KEY, restart, and start the run again.",
    ),
    402: _Rule(
        "pause",
        "billing",
        "The Anthropic account cannot be billed (402). Settle it in the Console, then resume the run.",
    ),
    403: _Rule(
        "fail",
        "permission",
        "The API key may not do this (403). Use a key whose workspace has access to this model.",
    ),
    404: _Rule(
        "fail",
        "not_found",
        "Claude does not know this model (404). Check the agent's model name, then start the run again.",
    ),
    408: _Rule("retry", "timeout", "Claude gave up waiting for the request (408). It is sent again."),
    409: _Rule("retry", "conflict", "Claude reported a conflict (409). The request is sent again."),
    413: _Rule(
        "fail",
        "too_large",
        "The conversation is larger than the API accepts (413). Start a new run with a narrower question.",
    ),
    429: _Rule("retry", "rate_limit", "The API key's rate limit is reached (429). The run goes on later."),
    500: _Rule("retry", "api_error", "Claude had an internal error (500). The request is sent again."),
    502: _Rule("retry", "unavailable", "Claude is not reachable (502). The request is sent again."),
    503: _Rule("retry", "unavailable", "Claude is not available (503). The request is sent again."),
    504: _Rule("retry", "timeout", "Claude did not answer in time (504). The request is sent again."),
    529: _Rule("retry", "overloaded", "Claude is overloaded (529). The run goes on when it has room."),
}
# An error event inside a stream arrives with HTTP status 200; only its type says what it is.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def from_exception(error: BaseException) -> TurnFailed:
    """The TurnFailed for whatever the SDK raised, without the partial facts of the stream."""
    if isinstance(error, anthropic.APIStatusError):
        return _from_status(error)
    if isinstance(error, anthropic.APITimeoutError):
        return TurnFailed("retry", "timeout", "Claude did not begin to answer in time. It is asked again.")
    if isinstance(error, anthropic.APIConnectionError):
        return TurnFailed(
            "retry",
            "unreachable",
            "Claude could not be reached. Check the network and the address; it is tried again.",
        )
    if isinstance(error, httpx2.TimeoutException):
        return TurnFailed(
            "retry", "stalled", "Claude fell silent in the middle of a turn. It is asked again."
        )
    if isinstance(error, httpx2.HTTPError | httpx2.StreamError):
        return TurnFailed(
            "retry",
            "connection_lost",
            "The connection broke in the middle of a turn. Claude is asked again.",
        )
    if isinstance(error, UnicodeEncodeError):
        return TurnFailed(
            "fail",
            "invalid_request",
            "The conversation holds text that cannot be sent. Start a new run.",
        )
    if isinstance(error, TypeError | anthropic.AnthropicError) and not isinstance(error, anthropic.APIError):
        return TurnFailed(
            "fail",
            "configuration",
            f"The request could not be built: {said(str(error))} Check the key and the agent's settings.",
        )
    return unreadable()


def unreadable() -> TurnFailed:
    """The TurnFailed for an answer that came and that nobody understands."""
    return TurnFailed("retry", "malformed_stream", "Claude sent something unreadable. It is asked again.")


def _from_status(error: anthropic.APIStatusError) -> TurnFailed:
    status = error.status_code
    if status < 400:
        status = _STATUS_OF_TYPE.get(str(error.type), 500)
    rule = _rule(status, error.error_code, error.api_message or "")
    sentence = rule.sentence
    if error.api_message:
        sentence += f' It said: "{said(error.api_message)}"'
    return TurnFailed(
        rule.action,
        rule.kind,
        sentence,
        retry_after=retry_after(error.response.headers, datetime.now(UTC)),
        api_request_id=error.request_id or "",
    )


def _rule(status: int, code: str | None, message: str) -> _Rule:
    if code in _SPEND_CODES:
        return _SPEND
    # A limit the account owner set comes as a plain 400 without a code. The wording may change,
    # so it only ever turns a failure into a pause, which loses nothing.
    if status == 400 and ("usage limit" in message.lower() or "credit balance" in message.lower()):
        return _SPEND
    if status == 400 and "prompt is too long" in message.lower():
        return _TOO_LONG
    if status in _RULES:
        return _RULES[status]
    if status >= 500:
        return _Rule("retry", "api_error", f"Claude had an error ({status}). The request is sent again.")
    return _Rule(
        "fail",
        "refused_request",
        f"Claude refused the request ({status}). The same request cannot work; look at the message.",
    )


def retry_after(headers: httpx2.Headers, now: datetime) -> float | None:
    """Seconds the response asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date.

    None when the header is missing or unreadable; never negative; no cap.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    # "nan" and "inf" are floats to Python and nonsense in a header.
    return max(0.0, number) if number is not None and number < float("inf") else None


def said(text: str) -> str:
    """A foreign message as one harmless line of at most 300 characters."""
    line = " ".join(_CONTROL.sub(" ", text).split())
    return line if len(line) <= 300 else line[:299] + "…"
