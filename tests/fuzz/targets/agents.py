"""Targets for agents' answers over port-forwards: HTTP, then JSON."""

from __future__ import annotations

import contextlib

from userspace_proxy.status.answers import encode_answer
from userspace_proxy.status.http_answer import Bounds, HttpAnswer, TooLarge, Unreadable
from userspace_proxy_kubectl.nodes.decoding import Allowance, read_change, read_whole_line
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of

STATUS = status_of(service_objects(2), "node-1")

_BOUNDS = Bounds(wire=1 << 20, body=2 << 20)


def check_agent_http(data: bytes) -> None:
    """Check that a body is within its bound; the first byte is the size of the chunks."""
    size = 1 + data[0] if data else 1
    answer, body = HttpAnswer(_BOUNDS), 0
    with contextlib.suppress(Unreadable, TooLarge):
        for at in range(1, len(data), size):
            body += sum(map(len, answer.feed(data[at : at + size])))
            if answer.is_complete:
                break
        else:
            body += sum(map(len, answer.feed(b"")))
            assert answer.is_complete
    assert body <= _BOUNDS.body


def check_agent_lines(data: bytes) -> None:
    """Check that each line is rejected, or is an answer or a change that can be encoded again."""
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError, TooLarge):
            encode_answer(read_whole_line(line, Allowance(_BOUNDS.body)))
        with contextlib.suppress(ValueError, TooLarge):
            encode_answer(read_change(STATUS, line, Allowance(_BOUNDS.body)))
