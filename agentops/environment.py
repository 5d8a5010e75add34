"""Read settings from the environment and fail loudly when a value makes no sense."""

from __future__ import annotations

import os
import re
import secrets
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from runs.outgoing import Private


def text(name: str, default: str) -> str:
    """The variable's text, or the default when it is unset or empty."""
    return os.environ.get(name, "").strip() or default


def flag(name: str, default: bool) -> bool:
    """True for 1/true/yes/on, False for 0/false/no/off; anything else is an error."""
    value = os.environ.get(name, "").strip().lower()
    if not value:
        return default
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is neither yes nor no: set it to 1 or 0.")


def number(name: str, default: str, *, least: str = "0") -> Decimal:
    """A number that is not negative, and at least `least`."""
    value = text(name, default)
    try:
        result = Decimal(value)
    except InvalidOperation:
        result = Decimal(-1)
    if not result.is_finite() or result < 0 or not value.isascii() or "_" in value:
        raise ImproperlyConfigured(f"{name}={value!r} is not a number of zero or more.")
    if result < Decimal(least):
        raise ImproperlyConfigured(f"{name}={value!r} is too small: set it to {least} or more.")
    return result


def one_of(name: str, *choices: str) -> str:
    """One of these words; the first one when the variable is unset or empty."""
    value = text(name, choices[0])
    if value not in choices:
        raise ImproperlyConfigured(f"{name}={value!r} is not known: set it to {' or '.join(choices)}.")
    return value


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def numbers(name: str, default: str = "") -> list[float]:
    """A comma-separated list of numbers that are not negative; `0` alone is an empty list."""
    try:
        values = [float(word) for word in words(name, default)]
    except ValueError:
        values = [float("nan")]
    if not all(0 <= value < 10**6 for value in values):
        raise ImproperlyConfigured(f"{name} has to be numbers with commas between them, such as {default}.")
    return sorted({value for value in values if value})


def address(name: str) -> str:
    """The address of a site without the slash at its end, or an empty text."""
    value = text(name, "").rstrip("/")
    if value and not re.fullmatch(r"https?://[^\s/<>|]+(/[^\s<>|]*)?", value):
        raise ImproperlyConfigured(f"{name}={value!r} is no address: write https://agents.example.com.")
    return value


def private_network(name: str) -> Private:
    """What may be asked in the private network: networks, addresses and host names, separated by commas."""
    try:
        return Private.parse(words(name))
    except ValueError as error:
        raise ImproperlyConfigured(
            f"{name}: {error}. List networks and hosts, such as 10.1.0.0/16,hooks.internal."
        ) from error


def mailers(name: str, seconds: float) -> dict[str, dict[str, Any]]:
    """Django's settings for a mail address: console:, file:///folder, smtp://…, smtps://…; none when unset.

    smtp:// agrees on TLS and sends nothing without; smtp+plain:// is for a relay on the same machine.
    """
    value = text(name, "")
    if not value:
        return {}
    parts = urlsplit(value)
    backend = "django.core.mail.backends.{}.EmailBackend"
    if parts.scheme == "console":
        return {"default": {"BACKEND": backend.format("console")}}
    if parts.scheme == "file" and parts.path.startswith("/"):
        return {"default": {"BACKEND": backend.format("filebased"), "OPTIONS": {"file_path": parts.path}}}
    if parts.scheme in {"smtp", "smtps", "smtp+plain"} and parts.hostname:
        options = {
            "host": parts.hostname,
            "port": parts.port,
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "use_tls": parts.scheme == "smtp",
            "use_ssl": parts.scheme == "smtps",
            "timeout": seconds,
        }
        return {"default": {"BACKEND": backend.format("smtp"), "OPTIONS": options}}
    raise ImproperlyConfigured(
        f"{name} is no mail address: write smtp://user:password@host:587, smtps://…, file:///folder or "
        "console:."
    )


def database(name: str, url: str) -> dict[str, Any]:
    """Django's settings for a database address: a file of SQLite, or PostgreSQL."""
    try:
        parsed: dict[str, Any] = dict(dj_database_url.parse(url))
    except ValueError as error:
        raise ImproperlyConfigured(
            f"{name} is no database address: write postgres://user:password@host/name or sqlite:////path/file."
        ) from error
    if parsed["ENGINE"] == "django.db.backends.postgresql":
        return parsed
    if parsed["ENGINE"] != "django.db.backends.sqlite3" or parsed["NAME"] in {"", ":memory:"}:
        raise ImproperlyConfigured(
            f"{name} names a database that agentops cannot share between processes: use PostgreSQL or an "
            "SQLite file, such as sqlite:////path/file."
        )
    return parsed


def kept_secret(path: Path) -> str:
    """The secret in this file; made on first use, readable by its owner alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (kept := path.read_text().strip()):
            return kept
        secret = secrets.token_urlsafe(50)
        # Written whole under another name first: a crash leaves no empty secret behind.
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secret)
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
        try:
            os.link(draft, path)
        except FileExistsError:  # another process was first
            return path.read_text().strip()
        finally:
            draft.unlink()
    except OSError as error:
        raise ImproperlyConfigured(
            f"Cannot write {path}: {error.strerror}. Set AGENTOPS_DATA to a folder this user may "
            "write to, or give the secret in AGENTOPS_SECRET_KEY."
        ) from error
    return secret
