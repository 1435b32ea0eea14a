from userspace_proxy.agent.check.preserving import judge_preserving


def test_the_reason_why_addresses_are_not_kept_is_told_with_a_way_out():
    (found,) = judge_preserving("Cilium carries what pods answer past this node's network stack")
    assert found.mark == "warning"
    assert found.what.endswith(
        "instead of their clients': Cilium carries what pods answer past this node's network stack"
    )
    assert "--preserve-client-address=never" in found.way_out


def test_addresses_that_are_kept_are_well():
    (found,) = judge_preserving("")
    assert (found.mark, found.topic) == ("ok", "client addresses")
