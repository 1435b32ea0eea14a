from userspace_proxy.agent.reporting import drifted, not_served, repaired
from userspace_proxy.model import ServiceKey
from userspace_proxy.plan import IgnoredService


def test_repairs_and_drift_are_of_the_node():
    happening = repaired(1, "nftables")
    assert (happening.reason, happening.service) == ("SteeringRepaired", None)
    assert happening.note.startswith("1 rule or frontend of nftables steering had been changed")
    assert drifted("EPERM", "iptables").note == (
        "rules of iptables steering differ from the plan and can't be repaired: EPERM"
    )


def test_a_conflict_is_of_its_service():
    web = ServiceKey("shop", "web")
    happening = not_served(
        IgnoredService(web, "http", "10.96.0.1:80/TCP is held", is_conflict=True)
    )
    assert (happening.service, happening.note) == (web, "port http: 10.96.0.1:80/TCP is held")
