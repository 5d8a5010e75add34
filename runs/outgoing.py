"""Requests to addresses that people entered: signed, bounded, and never into the private network.

The host is resolved once, its addresses are checked, and the connection goes to an address that was checked:
a name that resolves to something else a moment later changes nothing. Redirects are not followed, and no
proxy or password of the machine's environment is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from urllib.parse import SplitResult, urlsplit

from runs.networks import Address, Network, is_in, is_special, reached
from tools.backends.deadline import Deadline
from tools.backends.http import retry_after

MOST_ANSWER_BYTES = 20_000
PRIVATE = (
    "Its host is in a private network, where nothing is sent. To allow it, list the host or its network in "
    "AGENTOPS_WEBHOOK_PRIVATE."
)


class BadAddress(Exception):
    """This address is never asked; the sentence says why and what to do."""


class Unreachable(Exception):
    """No answer came; the sentence says why. Trying again may help."""


@dataclass(frozen=True)
class Answer:
    """What a receiver answered. `wait_seconds` is what it asked to wait, if anything."""

    status: int
    wait_seconds: float | None


@dataclass(frozen=True)
class Private:
    """What may be asked although it is not public: networks, and names whatever they resolve to."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, words: Sequence[str]) -> Private:
        """From words such as 10.1.0.0/16, ::1, hooks.internal. Raises ValueError for anything else."""
        networks, hosts = [], set()
        for word in words:
            try:
                networks.append(ipaddress.ip_network(word))
            except ValueError:
                if not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", word) or not re.search(
                    r"[A-Za-z]", word
                ):
                    raise ValueError(f"{word!r} is neither a network nor a host name") from None
                hosts.add(word.lower())
        return cls(tuple(networks), frozenset(hosts))

    def allows(self, address: Address, host: str) -> bool:
        """May this address, which this host has, be asked? So may every address that it embeds."""
        if host.lower() in self.hosts:
            return True
        if is_in(address, self.networks):
            return True
        return all(is_in(end, self.networks) or not is_special(end) for end in reached(address))


def check_address(url: str) -> SplitResult:
    """The parts of an address that can be asked. Raises BadAddress; the network is not touched."""
    example = "such as https://hooks.example.com/agentops"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadAddress(f"This is no address. Write one {example}.") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise BadAddress(f"The address has to begin with https:// or http://, {example}.")
    if parts.username is not None or parts.password is not None:
        raise BadAddress("The address holds a user name or password. Take it out; requests are signed.")
    if not _is_host(host):
        raise BadAddress(f"“{host[:80]}” can be no host. Write an address {example}.")
    if port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise BadAddress(f"The address holds characters that it cannot have. Write one {example}.")
    return parts


def check_receiver(url: str, private: Private) -> None:
    """Refuse an address that could never be sent to. Raises BadAddress; names are not looked up.

    A name may resolve to something else later, so only addresses written as such, and this machine, are told.
    """
    host = check_address(url).hostname or ""
    address = _literal(host)
    inward = host.rstrip(".").lower() == "localhost" or host.rstrip(".").lower().endswith(".localhost")
    if address is None and inward:
        address = ipaddress.ip_address("127.0.0.1")
    if address is not None and not private.allows(address, host):
        raise BadAddress(PRIVATE)


def _literal(host: str) -> Address | None:
    """The address that is written there, also in the old forms that resolvers take; None for a name."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.partition("%")[0] if ":" in host else host)
    with suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return None


def _is_host(host: str) -> bool:
    """May it be a host: an address, or a name whose last part is no number."""
    if _literal(host) is not None:
        return True
    labels = host.removesuffix(".").split(".")
    fits = all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in labels)
    return fits and len(host) <= 253 and not labels[-1].isdigit()


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, private: Private) -> Answer:
    """POST this body; returns the answer's status within about `seconds`, whatever the receiver does.

    Raises BadAddress for what is never asked, Unreachable when no answer came.
    """
    parts = check_address(url)
    with Deadline(seconds) as deadline:
        connection = _connection(parts, private, deadline)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, body, dict(headers))
            response = connection.getresponse()
            if deadline.is_over:  # headers that are cut look like headers that end
                raise TimeoutError
            with suppress(OSError, http.client.HTTPException):  # the status is what counts
                response.read(MOST_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if deadline.is_over or isinstance(error, TimeoutError):
                raise Unreachable(f"It did not answer within {seconds:g} s.") from None
            raise Unreachable("It broke off in the middle of its answer.") from None
        finally:
            connection.close()
    return Answer(response.status, retry_after(dict(_lowered(response.getheaders()))))


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over id, timestamp and body, as standard webhooks write it: `v1,` and base64.

    `secret` is whsec_ and base64. Raises ValueError for another form.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError("the secret is not whsec_ and base64") from error
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def _connection(parts: SplitResult, private: Private, deadline: Deadline) -> http.client.HTTPConnection:
    """Open, to an address that was checked, and with TLS for the name when it is https."""
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    plain = _connected(_allowed(host, port, private), deadline)
    try:
        if secure:
            plain = _tls().wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            deadline.hold(plain)
            plain.do_handshake()
    except (OSError, ValueError) as error:
        plain.close()
        if deadline.is_over:
            raise Unreachable(f"It did not answer within {deadline.seconds:g} s.") from None
        certificate = isinstance(error, ssl.SSLCertVerificationError)
        why = "its certificate does not hold" if certificate else "TLS could not be agreed on"
        raise Unreachable(f"It cannot be trusted: {why}.") from None
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(host, port)
    connection.sock = plain  # so that it does not connect by itself
    connection.auto_open = 0
    return connection


def _allowed(host: str, port: int, private: Private) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """The addresses of this host that may be asked. Raises BadAddress when there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unreachable("Its host name is not known.") from None
    allowed: list[tuple[socket.AddressFamily, tuple[str, int]]] = []
    for family, _, _, _, end in found:
        with suppress(ValueError):
            address = ipaddress.ip_address(str(end[0]).partition("%")[0])
            if private.allows(address, host):
                allowed.append((family, (str(end[0]), port)))
    if not allowed:
        raise BadAddress(PRIVATE)
    return allowed


def _connected(ends: list[tuple[socket.AddressFamily, tuple[str, int]]], deadline: Deadline) -> socket.socket:
    for family, end in ends:
        if deadline.is_over:
            break
        plain = socket.socket(family, socket.SOCK_STREAM)
        plain.settimeout(deadline.left)
        try:
            plain.connect(end)
        except OSError:
            plain.close()
            continue
        deadline.hold(plain)
        return plain
    raise Unreachable("It cannot be reached.")


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _lowered(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers]
