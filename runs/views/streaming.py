"""Files that are sent while they are read."""

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
    response = StreamingHttpResponse(_body(request, lines, at_once), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _body(request: HttpRequest, lines: Iterator[str], at_once: int) -> Iterable[str] | AsyncIterator[str]:
    """Asynchronous where the server is, or the portions would be collected first."""
    portions = ("".join(portion) for portion in batched(lines, at_once, strict=False))
    return _in_thread(portions) if isinstance(request, ASGIRequest) else portions


async def _in_thread(portions: Iterator[str]) -> AsyncIterator[str]:
    """Each portion is read in the thread of this request, which has the database connection."""
    while portion := await sync_to_async(_next)(portions):
        yield portion


def _next(portions: Iterator[str]) -> str:
    return next(portions, "")
