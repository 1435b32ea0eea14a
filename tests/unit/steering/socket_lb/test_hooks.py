"""Hooks that aren't or can't be started; tests/node tests their effect in the kernel."""

import errno

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.facts.node import SocketLbFacts
from userspace_proxy.kernel.offers import KernelOffers
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.socket_lb import HookOptions, Hooks

WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
LACKS_BPF = KernelOffers({"connect hooks": errno.EINVAL})


@pytest.fixture
def hooks(tmp_path):
    return Hooks(HookOptions(cgroup=str(tmp_path)), "", LACKS_BPF, tmp_path)


def test_starting_hooks_on_a_kernel_without_bpf_is_an_error(hooks, tmp_path):
    words = r"cannot translate connect\(\): this kernel lacks connect hooks \(CONFIG_BPF_SYSCALL, "
    with pytest.raises(SteeringError, match=words):
        hooks.start()
    assert list(tmp_path.iterdir()) == []


def test_unstarted_hooks_report_and_change_nothing(hooks):
    assert hooks.state == SocketLbFacts(is_attached=False)
    assert hooks.take_events() == []
    assert hooks.not_offloaded(WEB) == "it isn't on the kernel path"
    hooks.observe(True)
    hooks.readmit("shop/web", SocketAddress("10.244.1.1", 8080))
    hooks.repair()
    hooks.remove()
    hooks.close()
