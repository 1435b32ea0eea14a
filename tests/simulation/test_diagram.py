"""Tests of diagrams of traces."""

from __future__ import annotations

from .diagram import WIDTH, diagram

TRACE = [
    (1000.2012, "client 3 at 10.3.200.1: dials service 0"),
    (1000.2034, "proxy's dial of 10.2.0.2 from port 32769: answers"),
    (1000.2056, "endpoint 10.2.0.2#0: sent 232 B"),
    (1000.3, "endpoint 10.2.0.1: answers from now on"),
    (1000.8036, "the process stopped 6 s"),
    (1006.9, "client 3: ECONNRESET"),
]


DRAWN = """
  seconds  client                       proxy                        endpoint
   0.2012  │ 3 at 10.3.200.1: dials ───▶│                            │
           │ service 0                  │                            │
   0.2034  │                            │ dial of 10.2.0.2: answers ▶│
   0.2056  │                            │◀───────────────────────────│ 10.2.0.2#0: sent 232 B
   0.3000  │                            │                            │ 10.2.0.1: answers from
           │                            │                            │ now on
   0.8036  the process stopped 6 s ─────────────────────────────────────────────────────────────────
   6.9000  │ 3: ECONNRESET              │                            │
"""


def test_a_diagram_shows_who_sent_what_to_whom() -> None:
    assert "\n".join(diagram(TRACE, 1000.0, 40)) == DRAWN.strip("\n")


def test_a_diagram_has_as_many_lines_as_there_is_room_for_and_shows_the_end() -> None:
    lines = list(diagram(TRACE * 100, 1000.0, 10))
    assert len(lines) == 12
    assert "ECONNRESET" in lines[-1]
    assert "--whole" in lines[1]
    assert all(len(line) <= WIDTH for line in lines)


def test_a_diagram_ends_with_the_first_violation() -> None:
    lines = list(diagram([*TRACE, (1007.0, "VIOLATION: order"), *TRACE], 1000.0, 40))
    assert "VIOLATION: order" in lines[-1]
