"""Designed error pages: what happened, in one sentence, and where to go on. No traceback, ever."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Concatenate

from django.db import DataError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template import loader
from django.utils.deprecation import MiddlewareMixin

logger = logging.getLogger(__name__)

DEFAULTS = {
    400: ("Bad request", "The browser sent something that makes no sense here. Go back and try again."),
    403: ("Not allowed", "You may not do this. Ask an administrator for the permission."),
    404: ("Not found", "There is no such page. It may have been mistyped."),
    405: ("Not done this way", "This address cannot be used this way. Nothing was changed."),
    413: ("Too large", "That was larger than this page takes. Shorten it and send it again."),
}


def error_page(request: HttpRequest, status: int, *, title: str = "", sentence: str = "") -> HttpResponse:
    """The error page of this status, with its own words when they are given; htmx gets the sentence alone."""
    usual_title, usual_sentence = DEFAULTS[status]
    context = {"status": status, "title": title or usual_title, "sentence": sentence or usual_sentence}
    template = "errors/fragment.html" if "HX-Request" in request.headers else "errors/error.html"
    return render(request, template, context, status=status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """400; a body that is too large to be read is said to be so."""
    if type(exception).__name__ in {"RequestDataTooBig", "TooManyFieldsSent", "TooManyFilesSent"}:
        return error_page(request, 413)
    return error_page(request, 400)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """403; the exception may carry the sentence to show."""
    return error_page(request, 403, sentence=str(exception or ""))


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """404; a view may raise Http404 with the sentence to show."""
    written_here = isinstance(exception, Http404) and exception.args and isinstance(exception.args[0], str)
    return error_page(request, 404, sentence=str(exception) if written_here else "")


def server_error(request: HttpRequest) -> HttpResponse:
    """500, from a template that needs neither database nor request.

    503 when it is the database that does not answer: who asks is looked up before any view, where
    `BusyDatabase` is not asked.
    """
    if isinstance(sys.exception(), OperationalError):
        return _busy()
    return HttpResponse(loader.get_template("errors/500.html").render(), status=500)


class BusyDatabase(MiddlewareMixin):
    """503 instead of 500 when the database is locked or away, 400 when it cannot keep what was sent."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for a database that does not, or that cannot keep what was sent, such as NUL in a text."""
        if isinstance(exception, DataError):
            logger.warning("%s %s: it cannot be stored: %s", request.method, request.path, exception)
            return bad_request(request)
        if not isinstance(exception, OperationalError):
            return None
        logger.warning("%s %s: the database does not answer: %s", request.method, request.path, exception)
        return _busy()


def _busy() -> HttpResponse:
    response = HttpResponse(loader.get_template("errors/503.html").render(), status=503)
    response["Retry-After"] = "5"
    return response


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403 for a form that is too old or was sent from elsewhere."""
    sentence = (
        "This form was opened too long ago, or in another sign-in. Nothing was changed. "
        "Go back, reload the page and send it again."
    )
    return error_page(request, 403, title="The form has expired", sentence=sentence)


def allow[**P](
    *methods: str,
) -> Callable[
    [Callable[Concatenate[HttpRequest, P], HttpResponseBase]],
    Callable[Concatenate[HttpRequest, P], HttpResponseBase],
]:
    """Decorator: other methods get a designed 405 page with the Allow header."""

    def decorate(
        view: Callable[Concatenate[HttpRequest, P], HttpResponseBase],
    ) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
        @wraps(view)
        def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if request.method in methods:
                return view(request, *args, **kwargs)
            response = error_page(request, 405)
            response["Allow"] = ", ".join(methods)
            return response

        checked.methods = methods  # type: ignore[attr-defined]
        return checked

    return decorate
