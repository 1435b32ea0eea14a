"""How often and for whom endpoints are probed after clients' dials have failed."""

from types import SimpleNamespace

import pytest

from tests.port_keys import port_key
from userspace_proxy.agent.watchers.suspects import PER_SECOND, Suspects, make_probes
from userspace_proxy.model import DialFailure, Failure, SocketAddress

REFUSED, UNANSWERED = Failure.REFUSED, Failure.SILENT
FAILED = DialFailure(Failure.REFUSED, 111)
SECONDS = 10
POD, OTHER = SocketAddress("192.0.2.1", 8080), SocketAddress("192.0.2.2", 8080)


def served(namespace, name):
    """Return a minimal served port."""
    key = port_key(f"{namespace}/{name}")
    return SimpleNamespace(group=SimpleNamespace(key=key), plan=SimpleNamespace(key=key))


WEB, CART = served("shop", "web"), served("shop", "cart")


class Rig:
    """Suspects whose probes follow a schedule, and end when a test ends them."""

    def __init__(self):
        self.results = []
        self.begun = []
        self.suspects = Suspects(self._note, self._make_probes)

    def _make_probes(self, note):
        self.note, self.schedule = note, make_probes(note).schedule
        self.add, self.discard = self.schedule.add, self.schedule.discard
        return self

    def _note(self, suspect, failed):
        label = str(suspect.served.group.key)
        self.results.append((label, suspect.endpoint, suspect.failure, suspect.failures, failed))

    def pass_(self, now, failed=None):
        """Begin and end the probes that are due."""
        for endpoint in self.schedule.take(now, 512):
            self.begun.append(endpoint)
            self.schedule.finished(endpoint, now, has_failed=failed is not None)
            self.note(endpoint, failed)


@pytest.fixture
async def rig():
    return Rig()


async def test_a_probe_result_applies_to_all_earlier_failed_dials(rig):
    rig.suspects.add(WEB, POD, REFUSED)
    rig.suspects.add(WEB, POD, UNANSWERED, 2)
    rig.suspects.add(CART, POD, REFUSED)
    rig.pass_(1.0, FAILED)
    assert rig.begun == [POD]
    assert rig.results == [
        ("shop/web", POD, UNANSWERED, 3, FAILED),
        ("shop/cart", POD, REFUSED, 1, FAILED),
    ]
    rig.pass_(60.0)
    assert rig.begun == [POD]
    rig.suspects.add(WEB, POD, REFUSED)
    rig.pass_(61.0)
    assert rig.results[2:] == [("shop/web", POD, REFUSED, 1, None)]


async def test_probes_of_failing_dials_are_limited_and_namespaces_take_turns(rig):
    mall = served("mall", "web")
    for hundredth in range(SECONDS * 100):
        # This adds 20,000 suspects per second.
        for number in range(200):
            pod = SocketAddress(f"198.51.{number % 5}.{hundredth % 250}", number)
            rig.suspects.add(mall, pod, REFUSED)
        if hundredth == 500:
            rig.suspects.add(WEB, OTHER, REFUSED)
            others = len(rig.begun)
        rig.pass_(1000.0 + hundredth / 100)
    assert 0.9 <= len(rig.begun) / (PER_SECOND * SECONDS) <= 1.01
    assert rig.begun.index(OTHER) - others <= 2
