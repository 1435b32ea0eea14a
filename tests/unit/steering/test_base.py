from __future__ import annotations

from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import REFUSE, EndpointChoice, KernelTarget, render_targets


def test_targets_are_rendered_as_one_sorted_line_per_frontend():
    targets = {
        Frontend("fd00:96::1", 80, Protocol.TCP): 36003,
        Frontend("10.96.0.10", 53, Protocol.UDP): 36002,
        Frontend("10.96.7.1", 80, Protocol.TCP): REFUSE,
    }
    assert render_targets(targets) == (
        "TCP 10.96.7.1:80 -> refuse\nTCP [fd00:96::1]:80 -> :36003\nUDP 10.96.0.10:53 -> :36002"
    )


def test_without_targets_the_text_is_empty():
    assert render_targets({}) == ""


def test_a_frontend_on_the_kernel_path_has_its_port_and_its_endpoints():
    web = Frontend("10.96.7.1", 80, Protocol.TCP)
    choice = EndpointChoice((SocketAddress("10.244.1.3", 80), SocketAddress("10.244.1.2", 80)))
    assert render_targets({web: KernelTarget(36001, (choice,))}) == (
        "TCP 10.96.7.1:80 -> :36001, in the kernel to 10.244.1.2:80 10.244.1.3:80"
    )
    off = KernelTarget(36001, (choice,), is_on=False)
    assert render_targets({web: off}) == "TCP 10.96.7.1:80 -> :36001"
