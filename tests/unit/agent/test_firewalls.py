"""Firewalls in the way are shown and logged, once each."""

from userspace_proxy.agent.firewalls import FirewallWatch
from userspace_proxy.errors import SteeringError
from userspace_proxy.steering.others import Firewall

DROP = Firewall("ip filter INPUT", "its policy is drop", "nft insert rule … ct status dnat accept")


async def test_a_firewall_is_logged_when_it_appears_and_when_it_disappears(caplog):
    caplog.set_level("INFO")
    there = [DROP]
    watch = FirewallWatch("nftables", (17000, 29999), read=lambda: list(there))
    for _ in range(2):
        await watch.look()
    assert watch.found == (DROP,)
    (record,) = caplog.records
    assert record.getMessage() == "a firewall may drop packets to Services"
    assert (record.chain, record.cause, record.remedy) == (DROP.chain, DROP.why, DROP.way_out)
    there.clear()
    await watch.look()
    assert watch.found == ()
    assert caplog.records[-1].getMessage() == "firewalls no longer drop packets to Services"
    watch.close()


async def test_an_unreadable_firewall_keeps_the_last_result():
    said = [[DROP]]

    def read():
        if not said:
            raise SteeringError("cannot list chains: Operation not permitted")
        return said.pop()

    watch = FirewallWatch("nftables", (17000, 29999), read=read)
    for _ in range(2):
        await watch.look()
    assert watch.found == (DROP,)
    watch.close()
