"""That rules of kube-proxy are there is shown."""

from userspace_proxy.agent.watchers.kube_proxy import KubeProxyWatch
from userspace_proxy.errors import SteeringError
from userspace_proxy.facts import StatusFacts


def shown(watch):
    facts = StatusFacts()
    watch.show(facts)
    return facts.kube_proxy


async def test_what_is_found_is_shown_until_it_is_gone():
    there = [(), ("iptables chain KUBE-SERVICES",)]
    watch = KubeProxyWatch(there.pop)
    assert shown(watch) == ()
    await watch.look()
    assert shown(watch) == ("iptables chain KUBE-SERVICES",)
    await watch.look()
    assert shown(watch) == ()
    await watch.close()


async def test_what_cannot_be_read_keeps_the_last_result():
    said = [("interface kube-ipvs0",)]

    def read():
        if not said:
            raise SteeringError("cannot list chains: Operation not permitted")
        return said.pop()

    watch = KubeProxyWatch(read)
    for _ in range(2):
        await watch.look()
    assert shown(watch) == ("interface kube-ipvs0",)
    await watch.close()
