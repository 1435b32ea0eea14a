"""Where frontends lead, in words."""

import pytest

from userspace_proxy.agent.frontend_view import view_frontend
from userspace_proxy.model import Frontend, Handling, Path, Protocol
from userspace_proxy.steering import Bind

from .samples import Cluster

POD = "192.0.2.1"
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)


def shown(served_ports, bind=Bind.PROXY_PORT):
    (served,) = served_ports
    view = view_frontend(served, WEB, bind)
    return view.target, view.is_reached


async def test_a_frontend_leads_to_its_proxy_port(make):
    served_ports = make(Bind.PROXY_PORT)
    targets = served_ports.follow(Cluster().serve("web", WEB.ip, POD))
    assert shown(served_ports) == (f"proxy port {targets[WEB]}", True)


@pytest.mark.parametrize(
    ("pods", "more", "target"),
    [
        pytest.param([], {}, "refused", id="without-endpoints"),
        pytest.param(
            [POD],
            {"handling": Handling(path=Path.KERNEL)},
            "the kernel, straight to endpoints",
            id="on-the-kernel-path",
        ),
    ],
)
async def test_where_it_leads_depends_on_endpoints_and_path(make, pods, more, target):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", WEB.ip, *pods, **more))
    assert shown(served_ports) == (target, True)


async def test_one_that_is_held_by_another_program_or_is_not_steered_is_not_reached(make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", WEB.ip, POD))
    served_ports.note_unsteered({WEB: "no route"})
    assert shown(served_ports) == ("not routed to this node", False)
    (served,) = served_ports
    served.held_by_others.add(WEB)
    assert shown(served_ports) == ("held by another program", False)


async def test_a_listener_at_the_frontend_itself_is_named_or_has_another_address(make):
    served_ports = make(Bind.LOOPBACK)
    served_ports.follow(Cluster().serve("web", WEB.ip, POD))
    target, is_reached = shown(served_ports, Bind.LOOPBACK)
    assert target.startswith("127.0.0.1:")
    assert is_reached
