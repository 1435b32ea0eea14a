"""Target for PROXY headers from a load balancer, or from a program that pretends to be one."""

from __future__ import annotations

from userspace_proxy.model import ProxyProtocol
from userspace_proxy.model.proxy_protocol import (
    HEADER_BYTES,
    Header,
    MalformedHeader,
    read_header,
    write_header,
)


def check_proxy_header(data: bytes) -> None:
    """Check that a complete header is parsed, and that this proxy could have written it."""
    header = _read(data)
    if header is None:
        return
    assert header.length <= min(len(data), HEADER_BYTES)
    assert _read(data[: header.length]) == header
    assert _read(data[: header.length - 1]) is None
    if header.source is not None:
        for version in ProxyProtocol:
            written = write_header(version, header.source, header.destination, "shop/web")
            assert _read(written) == Header(len(written), header.source, header.destination)


def _read(data: bytes) -> Header | None:
    problem = ""
    try:
        return read_header(data)
    except MalformedHeader as exc:
        problem = str(exc)
    assert "\n" not in problem
    return None
