"""A component receives only the dependencies that it needs."""

from userspace_proxy.agent.rounds.component import Component
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.facts import StatusFacts


async def test_a_component_without_overrides_does_nothing():
    component, facts = Component(), StatusFacts()
    await component.start(Supervisor())
    await component.refresh()
    component.show(facts)
    await component.close()
    assert facts == StatusFacts()
