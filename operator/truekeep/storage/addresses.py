"""Which addresses a pod may call that somebody else named: never those that only a machine has for itself.

A name is looked up once, and what was looked up is what is called: a name that answers differently the next time
(rebinding) gains nothing."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

# Clouds tell machines their credentials there; the rest of link-local goes with it.
METADATA = frozenset({"100.100.100.200", "168.63.129.16", "fd00:ec2::254", "192.0.0.192"})
LOOPBACK_ENV = "TRUEKEEP_LOOPBACK_STORES"  # LOOPBACK_ALLOWED on a person's machine and in tests, never in a pod
LOOPBACK_ALLOWED = "Allowed"
Lookup = Callable[[str, int], list[str]]


class AddressRefusedError(Exception):
    """The name leads to an address that must not be called; the text names both."""


class NoAddressError(Exception):
    """The name leads nowhere, now."""


def looked_up(host: str, port: int) -> list[str]:
    """The addresses of a name, in the order of the resolver. NoAddressError where there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NoAddressError(f"{host} can't be found: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def callable_addresses(host: str, port: int, lookup: Lookup | None = None, *, loopback: bool = False) -> list[str]:
    """The addresses to call for a name. AddressRefusedError where one of them is of the machine itself; with
    `loopback`, a person's own machine may be called by its loopback."""
    found = (lookup or looked_up)(host, port)
    for address in found:
        if loopback and ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            continue
        if why := refusal(address):
            raise AddressRefusedError(f"{host} leads to {address}, {why}; name another address")
    if not found:
        raise NoAddressError(f"{host} has no address")
    return found


def refusal(address: str) -> str:
    """Why an address must not be called; empty for one that may be."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or _nat64(ip)
        if inner is not None:
            return refusal(str(inner))
    if str(ip) in METADATA:
        return "where a cloud keeps credentials"
    if ip.is_loopback:
        return "which is the machine's own (loopback)"
    if ip.is_link_local:
        return "which is link-local, where clouds keep credentials"
    if ip.is_unspecified or ip.is_multicast or ip.is_reserved or str(ip) == "255.255.255.255":
        return "which is no address of a service"
    return ""


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The address inside of 64:ff9b::/96, by which IPv6-only networks reach IPv4."""
    if ip not in ipaddress.ip_network("64:ff9b::/96"):
        return None
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
