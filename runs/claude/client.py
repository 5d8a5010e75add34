"""The connection to the Messages API."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

import anthropic
import httpx2

from runs.claude.interrupting import to_interrupt

_PUBLIC_URL = "https://api.anthropic.com"
_NO_PROXIES = {"http://": None, "https://": None, "all://": None}


def connect(
    *, api_key: str, base_url: str = "", stall_seconds: float = 120.0, connect_seconds: float = 5.0
) -> anthropic.Anthropic:
    """A client for the Messages API at `base_url` (empty: Anthropic's own). Thread-safe; one per process.

    It never retries by itself: retries are the engine's, stored in the run, and survive a crash.
    `stall_seconds` is the longest silence accepted before the first byte and between two chunks.
    Key and address are explicit, so that no profile or variable of the machine slips in.
    """
    url = base_url or _PUBLIC_URL
    timeout = httpx2.Timeout(stall_seconds, connect=connect_seconds)
    if _is_loopback(url):
        # A proxy from the environment cannot reach this machine's own loopback address.
        encrypted = urlsplit(url).scheme == "https"
        http_client = anthropic.DefaultHttpxClient(
            trust_env=False, mounts=_NO_PROXIES, verify=encrypted, timeout=timeout
        )
    else:
        http_client = anthropic.DefaultHttpxClient(timeout=timeout)
    return anthropic.Anthropic(
        api_key=api_key,
        base_url=url,
        max_retries=0,
        timeout=timeout,
        http_client=to_interrupt(http_client),
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
