from __future__ import annotations

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering import Bind
from userspace_proxy.steering.base import (
    REFUSE,
    EndpointChoice,
    KernelTarget,
    NoSteering,
    render_targets,
)


def test_a_kernel_path_frontend_is_rendered_with_its_port_and_endpoints():
    web = Frontend("10.96.7.1", 80, Protocol.TCP)
    choice = EndpointChoice((SocketAddress("10.244.1.3", 80), SocketAddress("10.244.1.2", 80)))
    assert render_targets({web: KernelTarget(36001, (choice,))}) == (
        "TCP 10.96.7.1:80 -> :36001, in the kernel to 10.244.1.2:80 10.244.1.3:80"
    )
    off = KernelTarget(36001, (choice,), is_on=False)
    assert render_targets({web: off}) == "TCP 10.96.7.1:80 -> :36001"


WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)


async def test_mode_none_renders_the_applied_frontends_until_the_clean_up():
    steering = NoSteering()
    assert steering.bind is Bind.LOOPBACK
    assert await steering.start() == {}
    wanted = {WEB: 36001}
    await steering.apply({CART: 36002})
    await steering.apply(wanted)
    wanted.clear()
    assert await steering.render() == "TCP 10.96.7.1:80 -> :36001"
    await steering.change({CART: REFUSE}, [WEB])
    assert await steering.render() == "TCP 10.96.7.2:80 -> refuse"
    assert await steering.repair() == 0
    await steering.clean_up()
    assert await steering.render() == ""
    await steering.close()


async def test_changing_the_steering_before_the_first_apply_is_an_error():
    with pytest.raises(SteeringError, match="no steering was applied before"):
        await NoSteering().change({WEB: 36001}, ())
