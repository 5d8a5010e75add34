"""One-time sign-in links."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from runs.actions.change import one_writer
from runs.models import SignInLink, token_hash

LINK_LIFETIME = timedelta(hours=12)


def make_sign_in_link(user: User) -> str:
    """A secret token that signs this user in once within twelve hours; only its hash is stored."""
    token = secrets.token_urlsafe(24)
    with one_writer():
        SignInLink.objects.create(
            user=user, token_sha256=token_hash(token), expires_at=timezone.now() + LINK_LIFETIME
        )
    return token


def use_sign_in_link(token: str) -> User | None:
    """The user this token signs in, and the token is used up; None when it is unknown, used or too old."""
    now = timezone.now()
    with one_writer():
        used = SignInLink.objects.filter(
            token_sha256=token_hash(token), used_at__isnull=True, expires_at__gt=now
        ).update(used_at=now)
    if not used:
        return None
    link = SignInLink.objects.select_related("user").get(token_sha256=token_hash(token))
    return link.user if link.user.is_active else None
