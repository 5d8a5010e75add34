"""Where webhooks may go: special-purpose addresses in every spelling; resolvers and sockets are stubs."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs import outgoing
from runs.outgoing import BadAddress, Private, Unreachable

IPv4, IPv6 = ipaddress.IPv4Address, ipaddress.IPv6Address

# The registries as IANA lists them, entry by entry, also where one is part of another. Multicast, site-local
# and unassigned space stand in registries of their own.
REGISTERED_IPV4 = [
    "0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
    "172.16.0.0/12", "192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32",
    "192.0.0.170/32", "192.0.0.171/32", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24",
    "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32", "224.0.0.0/4",
]  # fmt: skip
REGISTERED_IPV6 = [
    "::1/128", "::", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32",
    "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48",
    "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48",
    "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "4000::/3",
    "::2:0:0/96", "64:ff9b:0:1::/64",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.0", "192.0.1.0",
          "192.88.98.255", "192.88.100.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "11.0.0.0",
          "2606:4700::1111", "2001:4860:4860::8888", "2001:200::1", "2003::1", "3ffe:ffff::1", "3fff:1000::1",
          "2620:4f:8001::1", "2000::5efd:7f00:1"]  # fmt: skip


def embeddings(address: IPv4) -> list[IPv6]:
    """Every way in which an IPv6 address holds an IPv4 address that packets then reach."""
    number = int(address)
    prefixes = (
        "::",
        "::ffff:0:0",
        "::ffff:0:0:0",
        "64:ff9b::",
        "2606:4700::5efe:0:0",
        "2606:4700::200:5efe:0:0",
    )
    inside = [IPv6(int(IPv6(prefix)) | number) for prefix in prefixes]
    teredo = [0x20010000 << 96 | number << 64, 0x20010000 << 96 | 0x08080808 << 64 | number ^ 0xFFFFFFFF]
    return [*inside, IPv6(0x2002 << 112 | number << 80), *map(IPv6, teredo)]


def written(address: IPv4 | IPv6) -> str:
    """As the host of an address."""
    return f"[{address}]" if address.version == 6 else str(address)


def refused(host: str) -> bool:
    try:
        outgoing.check_receiver(f"http://{host}/", Private())
    except BadAddress:
        return True
    return False


def test_every_registered_network_is_refused_from_its_first_to_its_last_address() -> None:
    for text in (*REGISTERED_IPV4, *REGISTERED_IPV6):
        network = ipaddress.ip_network(text)
        for address in (network[0], network[-1], network[network.num_addresses // 2]):
            assert refused(written(address)), f"{address} of {text}"
            if isinstance(address, IPv4):
                assert all(refused(written(wrapped)) for wrapped in embeddings(address)), (
                    f"{address} in {text}"
                )


@pytest.mark.parametrize("address", PUBLIC)
def test_neighbours_of_the_registered_networks_are_allowed(address: str) -> None:
    assert not refused(written(ipaddress.ip_address(address)))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1).map(IPv4), st.integers(0, 2**128 - 1).map(IPv6))
def test_what_python_does_not_call_global_is_refused_however_it_is_wrapped(four: IPv4, six: IPv6) -> None:
    if not four.is_global or four.is_multicast:
        assert refused(str(four))
        assert all(refused(written(wrapped)) for wrapped in embeddings(four))
    if not six.is_global or six.is_multicast:
        assert refused(written(six))


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0X7F.0.0.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0", "0x0",
     "0xa9.0xfe.0xa9fe", "2852039166", "0251.0376.0251.0376", "10.1", "0300.0250.1", "[::ffff:0:7f00:1]",
     "[5f00::1]", "[3fff::1]", "192.88.99.1", "[::127.0.0.1]", "[fe80::1%25lo]", "localhost", "LOCALHOST.",
     "a.localhost", "[64:ff9b::169.254.169.254]", "[0:0:0:0:0:ffff:7f00:0001]"],
)  # fmt: skip
def test_other_spellings_of_inward_addresses_are_refused(host: str) -> None:
    assert refused(host)


@pytest.mark.parametrize(
    "host", ["１２７.0.0.1", "127。0。0。1", "①27.0.0.1", "%31%32%37.0.0.1", "127.0.0.1%25x"]
)
def test_spellings_that_only_some_programs_read_are_no_address(host: str) -> None:
    with pytest.raises(BadAddress):
        outgoing.check_address(f"http://{host}/")


def test_a_listed_network_allows_what_lies_in_it_and_no_tunnel_into_it() -> None:
    private = Private.parse(["10.1.0.0/16"])
    for host in ("10.1.2.3", "[::ffff:10.1.2.3]", "[64:ff9b::10.1.2.3]", "[2606:4700::5efe:10.1.2.3]"):
        outgoing.check_receiver(f"http://{host}/", private)
    for host in ("10.2.0.1", "[fd00::5efe:10.1.2.3]", "[2002:a01:203::1]", "[::ffff:10.2.0.1]"):
        with pytest.raises(BadAddress):
            outgoing.check_receiver(f"http://{host}/", private)
    outgoing.check_receiver("http://[::1]/", Private.parse(["::1"]))


# ---------------------------------------------------- names, and the connection


class Wire:
    """Stands for the network: what names resolve to, one answer after another, and who was connected to."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.connected: list[tuple[str, int]] = []

    def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        found = self.answers[host]
        answer = found.pop(0) if len(found) > 1 else found[0]
        kinds = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in answer]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (one, port)) for kind, one in zip(kinds, answer, strict=True)
        ]

    def socket(self, family: int, kind: int) -> StubbedSocket:
        return StubbedSocket(self)


class StubbedSocket:
    """Notes where it was to go; nobody is there."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def settimeout(self, seconds: float) -> None:
        pass

    def connect(self, end: tuple[str, int]) -> None:
        self._wire.connected.append(end)
        raise ConnectionRefusedError

    def close(self) -> None:
        pass


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    made = Wire()
    monkeypatch.setattr(outgoing.socket, "getaddrinfo", made.getaddrinfo)
    monkeypatch.setattr(outgoing.socket, "socket", made.socket)
    yield made


@pytest.fixture
def send(wire: Wire) -> Callable[[str], list[tuple[str, int]]]:
    """POST to this address; where connections went."""

    def post(url: str) -> list[tuple[str, int]]:
        with pytest.raises((BadAddress, Unreachable)):
            outgoing.post(url, b"{}", {}, seconds=2, private=Private())
        return wire.connected

    return post


def test_the_connection_goes_to_the_address_that_was_checked(
    wire: Wire, send: Callable[[str], list[tuple[str, int]]]
) -> None:
    wire.answers["hooks.example.com"] = [
        ["8.8.8.8"],
        ["127.0.0.1"],
    ]  # bound again as soon as it was looked up
    assert send("https://hooks.example.com/") == [("8.8.8.8", 443)]
    assert send("http://hooks.example.com:8080/") == [("8.8.8.8", 443)], "and then it is refused"


def test_of_several_addresses_only_public_ones_are_asked(
    wire: Wire, send: Callable[[str], list[tuple[str, int]]]
) -> None:
    wire.answers["hooks.example.com"] = [
        ["::ffff:0:7f00:1", "fd00::1", "10.0.0.1", "2606:4700::1", "fe80::1%lo", "64:ff9b::7f00:1", "1.1.1.1"]
    ]
    assert send("http://hooks.example.com/") == [("2606:4700::1", 80), ("1.1.1.1", 80)]


def test_a_resolver_that_reads_a_number_as_an_address_is_checked_as_well(
    wire: Wire, send: Callable[[str], list[tuple[str, int]]]
) -> None:
    wire.answers["hooks.0x7f000001."] = [["127.0.0.1"]]
    assert send("http://hooks.0x7f000001./") == []


def test_a_name_that_nobody_knows_is_said_to_be_unknown(wire: Wire) -> None:
    with pytest.raises(Unreachable, match="not known"):
        outgoing.post("http://nowhere.example/", b"", {}, seconds=5, private=Private())
