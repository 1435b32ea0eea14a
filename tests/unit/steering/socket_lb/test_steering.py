"""nftables steering where hooks don't work; tests/node tests working hooks."""

import errno

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.nf_tables import list_tables
from userspace_proxy.kernel.offers import LACKS_NOTHING, KernelOffers
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.base import SteeringFacts
from userspace_proxy.steering.nftables.steering import NftablesProgrammer
from userspace_proxy.steering.socket_lb import (
    HookedSteering,
    HookOptions,
    Hooks,
    check_hooks,
    make_hooked_steering,
)
from userspace_proxy.steering.socket_lb.programs import folder_of

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
FACTS = SteeringFacts(refuse_port=35999, proxy_name="without-hooks")
LACKS_BPF = KernelOffers({"connect hooks": errno.EINVAL})
LACK = "cannot translate connect(): this kernel lacks connect hooks"


async def test_all_clients_are_steered_by_rules_if_optional_hooks_fail(node, caplog):
    steering = HookedSteering(FACTS, HookOptions(), LACKS_BPF)
    await steering.start()
    assert steering.hooks is None
    (line,) = caplog.messages
    assert line.startswith(f"socket load balancing is off: {LACK}")
    await steering.apply({WEB: 36001})
    await steering.change({}, [WEB])
    await steering.apply({WEB: 36002})
    assert await steering.render() == f"TCP {WEB.address} -> :36002"
    assert await steering.repair() == 0
    await steering.clean_up()
    await steering.close()
    assert list_tables() == []


async def test_undetachable_hooks_of_an_earlier_run_do_not_prevent_startup(node, caplog, tmp_path):
    steering = HookedSteering(FACTS, HookOptions(), LACKS_BPF)
    steering._loaded = Hooks(HookOptions(), FACTS.proxy_name, LACKS_BPF, tmp_path)
    # A directory in place of a pin can't be removed like a file.
    (folder_of(tmp_path, FACTS.proxy_name) / "connect4").mkdir(parents=True)
    await steering.start()
    assert caplog.messages[-1].startswith(
        "cannot remove the connect() hooks, which translate until their term expires: cannot remove"
    )
    await steering.close()


async def test_hooks_are_repaired_although_the_rules_cannot_be(node, monkeypatch):
    def refuse(*_):
        raise SteeringError("cannot query nftables")

    steering = HookedSteering(FACTS, HookOptions(), LACKS_BPF)
    await steering.apply({WEB: 36001})
    repaired = []
    steering._loaded.repair = lambda: repaired.append("hooks")
    monkeypatch.setattr(NftablesProgrammer, "repair", refuse)
    with pytest.raises(SteeringError, match="query"):
        await steering.repair()
    assert repaired == ["hooks"]
    await steering.close()


async def test_required_hooks_that_fail_abort_startup(node):
    steering = HookedSteering(FACTS, HookOptions(is_required=True), LACKS_BPF)
    with pytest.raises(SteeringError) as caught:
        await steering.start()
    assert str(caught.value).startswith(LACK)
    await steering.close()


def test_nftables_steering_has_hooks_only_if_requested():
    assert isinstance(make_hooked_steering("nftables", FACTS, HookOptions()), HookedSteering)
    assert not isinstance(make_hooked_steering("nftables", FACTS, None), HookedSteering)


@pytest.mark.parametrize("name", ["iptables", "local", "none"])
def test_hooks_are_ignored_without_a_kernel_path_unless_required(name, caplog):
    assert make_hooked_steering(name, FACTS, HookOptions()).name == name
    cause = f"steering {name} has no kernel path"
    assert caplog.messages == [f"socket load balancing is off: {cause}"]
    required = HookOptions(is_required=True)
    with pytest.raises(SteeringError) as caught:
        check_hooks(name, required, LACKS_NOTHING, own_namespace=False)
    assert str(caught.value) == (
        f"cannot start: connect() isn't translated: {cause} (--steering=nftables)"
    )


def test_unusable_hooks_abort_startup_only_if_required():
    for hooks in (None, HookOptions()):
        check_hooks("nftables", hooks, LACKS_BPF, own_namespace=False)
    required = HookOptions(is_required=True)
    with pytest.raises(SteeringError, match=r"cannot translate connect\(\): this kernel lacks "):
        check_hooks("nftables", required, LACKS_BPF, own_namespace=False)
