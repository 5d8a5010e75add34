"""Long answers in pieces, so that nothing is held as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import batched

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse


def download(
    request: HttpRequest, lines: Iterator[str], *, name: str, content_type: str, at_once: int
) -> StreamingHttpResponse:
    """These lines as a file, `at_once` of them in each portion."""
    portions = ("".join(portion) for portion in batched(lines, at_once, strict=False))
    response = StreamingHttpResponse(streamed(request, portions), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def streamed(request: HttpRequest, pieces: Iterator[str]) -> Iterable[str] | AsyncIterator[str]:
    """The body of a StreamingHttpResponse; asynchronous where the server is, or it would be collected first.

    An empty piece ends it.
    """
    return _in_thread(pieces) if isinstance(request, ASGIRequest) else pieces


async def _in_thread(pieces: Iterator[str]) -> AsyncIterator[str]:
    """Each piece is read in the thread of this request, which has the database connection."""
    while piece := await sync_to_async(_next)(pieces):
        yield piece


def _next(pieces: Iterator[str]) -> str:
    return next(pieces, "")
