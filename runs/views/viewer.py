"""The person behind a request, and what that person needs. Every page but sign-in and health needs one."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from runs.access import Permission


def viewer_of(request: HttpRequest) -> User:
    """The signed-in user; the middleware has sent everybody else to sign in."""
    if isinstance(request.user, User):
        return request.user
    raise PermissionDenied("Sign in first.")


def require(permission: Permission) -> None:
    """Answer 403 with the sentence of this permission unless it is given."""
    if not permission:
        raise PermissionDenied(permission.why_not)
