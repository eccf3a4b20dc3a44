"""Addresses that may be asked: those of the public internet, unless the user allows others.

A workflow may come from a stranger, and what is asked for here is asked from inside of the user's network: printers,
routers and the metadata service of a cloud answer to anyone there.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from typing import Any

from graphflow import Problem, flag

__all__ = ["ALLOW_VARIABLE", "check_literal", "is_public", "refusal", "resolve"]

ALLOW_VARIABLE = "GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES"
"""Environment variable: 1 allows private, loopback and all other addresses."""

SocketAddress = tuple[socket.AddressFamily, str, Any]
"""Family, the address as text, and what ``socket.connect`` takes."""

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""NAT64 (RFC 6052): the last 32 bits are the IPv4 address that is reached."""

_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16")))
"""Protocol assignments and tunnels into IPv4 (6to4, Teredo), whose real end is somewhere else."""


def is_public(address: str) -> bool:
    """Tell whether an IPv4 or IPv6 address, as a resolver gives it, is one of the public internet.

    Private, loopback, link-local, shared, multicast, reserved and unspecified addresses are not, nor is an IPv6 address
    that stands for such an IPv4 address. Raises ValueError for a text that is no address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _TRANSLATED:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or any(ip in network for network in _SPECIAL))


def refusal(host: str, address: str) -> Problem | None:
    """Return the problem with an address of a host; None if it may be asked."""
    if is_public(address) or flag(ALLOW_VARIABLE, strict=True):
        return None
    found = f"{host} has the address {address}, which" if host != address else f"the address {address}"
    message = f"{found} is not of the public internet; such addresses are not asked"
    return Problem("url.address", message, hint=f"to allow it, set the environment variable {ALLOW_VARIABLE}=1")


def check_literal(host: str) -> Problem | None:
    """Return the problem with a host that is itself an address; the network is not touched."""
    try:
        return refusal(host, host)
    except ValueError:
        return None


def resolve(host: str, port: int, timeout: float) -> list[SocketAddress]:
    """Look the addresses of a host up, in the order of preference.

    Raises socket.gaierror where there are none, and TimeoutError after ``timeout`` seconds.
    """
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answers.put(error)

    # the resolver of the system knows no timeout; a thread that it holds ends with the process
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError("the name was not resolved") from None
    if isinstance(answer, UnicodeError):  # a label of more than 63 letters
        raise socket.gaierror(socket.EAI_NONAME, "no such name") from answer
    if isinstance(answer, Exception):
        raise answer
    return [(family, str(place[0]), place) for family, _, _, _, place in answer]
