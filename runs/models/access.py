"""One-time sign-in links, for the first visit and for people without a password."""

from __future__ import annotations

import hashlib

from django.conf import settings
from django.db import models
from django.utils import timezone


class SignInLink(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    token_sha256 = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"sign-in link for {self.user_id}"


def token_hash(token: str) -> str:
    """Only the hash is stored: reading the database signs nobody in."""
    return hashlib.sha256(token.encode()).hexdigest()
