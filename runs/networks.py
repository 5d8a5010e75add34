"""Which IP addresses are special-purpose, and which IPv4 addresses an IPv6 address embeds.

The lists are the IANA special-purpose address registries in full, including entries marked as globally
reachable: none of those is a web server. Python's `is_global` differs by release and follows few embeddings.
"""

from __future__ import annotations

import ipaddress

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SPECIAL_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private use
        "100.64.0.0/10",  # shared address space; metadata of Alibaba Cloud
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link local; metadata of most clouds
        "172.16.0.0/12",  # private use
        "192.0.0.0/24",  # IETF protocol assignments; metadata of Oracle Cloud
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunnelling
        "192.88.99.0/24",  # 6to4 and 6a44 relays
        "192.168.0.0/16",  # private use
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and limited broadcast
        "168.63.129.16/32",  # hands credentials to machines of Azure, from an address that looks public
    )
)
# Only this block is assigned to hosts at all. Outside of it are loopback, local, multicast and mapped
# addresses, 64:ff9b:1::/48, 100::/64, 5f00::/16 and whatever is registered next.
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
SPECIAL_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID, AMT, AS112 and others
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
# The last 32 bits are the IPv4 address that packets reach.
TRANSLATED = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
    )
)
ISATAP = 0x5EFE  # bits 32 to 63 of an interface identifier, where the bit for "globally unique" may be set
ISATAP_GLOBAL = 0x2000000


def is_special(address: Address) -> bool:
    """Whether a special-purpose registry holds this address, or no host of the public internet can have it.

    Says nothing about the IPv4 addresses that it embeds: ask about each one that is `reached`.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return is_in(address, SPECIAL_IPV4)
    return address not in GLOBAL_UNICAST or is_in(address, SPECIAL_IPV6)


def is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    """Whether one of these networks holds the address itself; an embedded one does not count."""
    return any(address in network for network in networks)


def reached(address: Address) -> tuple[Address, ...]:
    """The addresses that a packet to this one goes to: itself, the IPv4 address that it stands for, or both.

    A translated address is only another spelling of an IPv4 address. A tunnel has two ends.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if is_in(address, TRANSLATED):
        # ::1 and :: are not 0.0.0.1 and 0.0.0.0, but a network of IPv6 may list them.
        return (last,) if int(last) > 1 or int(address) >> 32 else (address,)
    ends: list[Address] = [address]
    if address.teredo is not None:
        ends += address.teredo  # server and client
    if address.sixtofour is not None:
        ends.append(address.sixtofour)
    if (int(address) >> 32 & 0xFFFFFFFF) & ~ISATAP_GLOBAL == ISATAP:
        ends.append(last)
    return tuple(ends)
