"""In-memory connect() hooks, for tests of the classes that read them."""

import os

from userspace_proxy.facts.node import SocketLbFacts
from userspace_proxy.model import SocketAddress
from userspace_proxy.steering.socket_lb.hooks import SocketEvent
from userspace_proxy.steering.socket_lb.socket_maps import DialCounts, EventKind, Result, RingEvent

CLIENT = SocketAddress("192.0.2.9", 40000)
FRONTEND = SocketAddress("10.96.0.1", 80)
_FAILED = {EventKind.REFUSED: "refused", EventKind.UNANSWERED: "unanswered"}


class FakeHooks:
    """A substitute for ``Hooks`` of steering.socket_lb, with its counters, ejections and events.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock):
        self.clock = clock
        self.counted = {}
        self.inherited = {}
        self.left = {}
        self.observed = []
        """The arguments of ``observe``."""
        self.readmitted = []
        """The arguments of ``readmit``."""
        self.readings = 0
        self.state = SocketLbFacts(True, cgroup="/sys/fs/cgroup", frontends=1, map_bytes=4096)
        self.event_descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self._ejected = {}
        self._events = []

    def close(self):
        os.close(self.event_descriptor)

    def shown(self):
        return self.state

    def count(self, at, **more):
        """Add to an endpoint's counters."""
        one = self.counted.get(at, DialCounts())
        if "buckets" not in more and (new := more.get("established")):
            more["buckets"] = (new, *[0] * 11)
        for name, number in more.items():
            had = getattr(one, name)
            if name == "buckets":
                number = tuple(map(sum, zip(had, number, strict=True)))
            else:
                number += had
            one = one._replace(**{name: number})
        self.counted[at] = one

    def fail(self, at, kind=EventKind.REFUSED):
        """Record a failed dial, which ejects its endpoint for one network namespace."""
        self.count(at, **{_FAILED[kind]: 1})
        self.report(at, kind)

    def answer(self, at):
        """Record a successful dial, which ends an ejection for all network namespaces."""
        self.count(at, established=1)
        if self._ejected.pop(at, None) is not None:
            self.report(at, EventKind.RETURNED)

    def report(self, at, kind, **more):
        """Add an event to the ring buffer."""
        name, endpoint = at
        seen = RingEvent(
            kind=kind,
            endpoint=0,
            at_ns=int(self.clock() * 1e9),
            ns=0,
            client=CLIENT,
            frontend=FRONTEND,
            waited_ns=0,
            received=0,
            sent=0,
            result=Result.NONE,
            tcp_state=0,
        )._replace(**more)
        self._events.append(SocketEvent(name, endpoint, seen))
        os.eventfd_write(self.event_descriptor, 1)

    def counts(self):
        self.readings += 1
        return dict(self.counted)

    def take_events(self):
        os.eventfd_read(self.event_descriptor)
        events, self._events = self._events, []
        return events

    def ejected(self):
        return {at: max(0.0, until - self.clock()) for at, until in self._ejected.items()}

    def eject(self, name, endpoint, kind):
        assert kind in _FAILED
        if (name, endpoint) in self._ejected:
            return None
        until = self._ejected[name, endpoint] = self.clock() + 5.0
        return until

    def readmit(self, name, endpoint):
        self._ejected.pop((name, endpoint), None)
        self.readmitted.append((name, endpoint))

    def observe(self, is_on):
        self.observed.append(is_on)

    def not_offloaded(self, frontend):
        return self.left.get(frontend, "")
