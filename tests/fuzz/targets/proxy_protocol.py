"""PROXY headers, as a load balancer in front, or what passes for one, sends them."""

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
    """A header is read as soon as it is complete, whatever follows, and is one that we write."""
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
