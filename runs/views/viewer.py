"""The person behind a request. Every page but sign-in and health needs one."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest


def viewer_of(request: HttpRequest) -> User:
    """The signed-in user; the middleware has sent everybody else to sign in."""
    if isinstance(request.user, User):
        return request.user
    raise PermissionDenied("Sign in first.")
