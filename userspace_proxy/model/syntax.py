"""Checks the syntax of names, numbers, words and addresses in objects.

Each check raises :class:`FieldError` with the path of the field.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from .addresses import IPFamily, parse_ip
from .quoting import quoted
from .wire import FieldError

# Source: RFC 1123 label and subdomain, as Kubernetes' IsDNS1123Label and -Subdomain.
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_IS_LABEL = re.compile(_LABEL)
_IS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
LABEL_MAX = 63
SUBDOMAIN_MAX = 253
PORT_NAME_MAX = 15
# Source: Kubernetes' IsValidLabelValue.
_IS_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")

PROTOCOLS = ("TCP", "UDP", "SCTP")
# Link-local multicast, which routers never forward; in IPv6 ff02::/16 with any flags.
_MULTICAST_V4 = ipaddress.IPv4Network("224.0.0.0/24")


def check_label(text: str, path: str) -> None:
    """Check a DNS label, such as the name of a Service, a namespace or a port."""
    what = "a DNS label: lower-case letters, digits and '-'"
    _check_form(text, path, _IS_LABEL, LABEL_MAX, what)


def check_subdomain(text: str, path: str) -> None:
    """Check a DNS subdomain, such as the names of most objects."""
    what = "a DNS name: lower-case letters, digits, '-' and '.'"
    _check_form(text, path, _IS_SUBDOMAIN, SUBDOMAIN_MAX, what)


def check_label_value(text: str, path: str) -> None:
    """Check the value of a label, such as a zone."""
    what = "a label's value: letters, digits, '-', '_' and '.'"
    _check_form(text, path, _IS_LABEL_VALUE, LABEL_MAX, what)


def _check_form(text: str, path: str, form: re.Pattern[str], most: int, what: str) -> None:
    if len(text) > most or not form.fullmatch(text):
        ends = "a letter or digit at both ends"
        raise FieldError(path, f"{quoted(text)} is not {what}, at most {most}, {ends}")


def check_qualified_name(text: str, path: str) -> None:
    """Check the key of a label or annotation: a name with an optional ``domain/`` prefix.

    Source: Kubernetes' IsQualifiedName.
    """
    prefix, slash, name = text.rpartition("/")
    if slash and (len(prefix) > SUBDOMAIN_MAX or not _IS_SUBDOMAIN.fullmatch(prefix)):
        raise FieldError(path, f"{quoted(text)} has no DNS name before the '/'")
    if not name or len(name) > LABEL_MAX or not _IS_LABEL_VALUE.fullmatch(name):
        raise FieldError(
            path,
            f"{quoted(text)} is not a qualified name: letters, digits, '-', '_' and '.', "
            f"at most {LABEL_MAX}, a letter or digit at both ends",
        )


def check_target_port(port: int | str, path: str) -> None:
    """Check a port number, or the name of a port of the pods; 0 and ``""`` mean ``port``.

    Source: Kubernetes' ValidateServicePort, IsValidPortName.
    """
    if isinstance(port, int):
        if port:
            check_number(port, path)
    elif port and not (
        len(port) <= PORT_NAME_MAX
        and _IS_LABEL.fullmatch(port)
        and "--" not in port
        and any(map(str.isalpha, port))
    ):
        hint = f": write {port} without quotes" if port.isdigit() else ""
        raise FieldError(
            path,
            f"{quoted(port)} is not a port's name: lower-case letters, digits and single '-', "
            f"at least one letter, at most {PORT_NAME_MAX}{hint}",
        )


def check_number(number: int, path: str) -> None:
    """Check that a number is a port number."""
    if not 1 <= number <= 65535:
        raise FieldError(path, f"{number} is not in 1–65535")


def check_word(
    text: str | None, path: str, words: Collection[str], *, may_be_empty: bool = True
) -> None:
    """Check that a string is one of a few words; it may be missing."""
    if text is None or (not text and may_be_empty):
        return
    if text not in words:
        raise FieldError(path, f"{quoted(text)} is not one of {', '.join(words)}")


def check_protocol(protocol: str | None, path: str) -> None:
    """Check a protocol; it may be missing."""
    check_word(protocol, path, PROTOCOLS)


def check_port_name(name: str | None, count: int, names: set[str], path: str) -> None:
    """Check one of ``count`` ports' names, and add it to ``names``; a single port needs no name."""
    if not name:
        if count > 1:
            raise FieldError(path, "is missing: one of several ports needs a name")
        return
    check_label(name, path)
    if name in names:
        raise FieldError(path, f"{quoted(name)} is already the name of another port")
    names.add(name)


def check_address(text: str | None, path: str) -> str:
    """Check an address, and return it in canonical form."""
    if not text:
        raise FieldError(path, "is missing")
    try:
        return parse_ip(text)
    except ValueError as exc:
        raise FieldError(path, str(exc)) from None


def check_common_address(text: str | None, path: str) -> str:
    """Check that an address isn't unspecified, loopback or link-local; return its canonical form.

    Source: Kubernetes' ValidateEndpointIP, which also applies to external IPs.
    """
    ip = check_address(text, path)
    address = ipaddress.ip_address(ip)
    kinds = {
        "unspecified": address.is_unspecified,
        "a loopback address": address.is_loopback,
        "link-local": address.is_link_local,
        "link-local multicast": address in _MULTICAST_V4
        if address.version == 4
        else address.packed[0] == 0xFF and address.packed[1] & 0x0F == 2,
    }
    for kind, applies in kinds.items():
        if applies:
            raise FieldError(path, f"{ip} is {kind}: it reaches no other machine")
    return ip


def check_family(ip: str, family: str, path: str) -> None:
    """Check that a canonical address belongs to a family such as ``IPv4``."""
    if str(IPFamily.of(ip)) != family:
        raise FieldError(path, f"{ip} is not {family}")
