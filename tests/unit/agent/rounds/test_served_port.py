"""The targets of a Service port's frontends, and the frontends that can't be steered."""

from dataclasses import replace

from userspace_proxy.errors import ListenError
from userspace_proxy.model import DataPath, Frontend, Protocol, Taken
from userspace_proxy.model.port_ranges import DialledRange
from userspace_proxy.model.serving import Serving
from userspace_proxy.policy import PathDecision
from userspace_proxy.steering import REFUSE, Bind

from ..conftest import retry
from ..samples import Cluster

POD = "192.0.2.1"


def frontend(ip, port=80, protocol=Protocol.TCP):
    return Frontend(ip, port, protocol)


async def test_an_unsteerable_frontend_is_reported_only_for_its_service_port(make, caplog):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    cluster.serve("cart", "10.96.0.1", POD)
    served_ports.follow(cluster.serve("web", "10.96.0.2", POD))
    served_ports.steered.note_unsteered(
        {frontend("10.96.0.2"): "cannot add local route 10.96.0.2/32: no"}
    )
    assert {str(served.plan.key.name): served.problem for served in served_ports} == {
        "shop/cart": "",
        "shop/web": "cannot add local route 10.96.0.2/32: no",
    }
    served_ports.follow(cluster.serve("web", "10.96.0.2", POD, "192.0.2.2"))
    assert not retry(served_ports), "a listener has nothing to retry"
    assert [bool(served.problem) for served in served_ports].count(True) == 1
    served_ports.steered.note_unsteered({})
    assert not any(served.problem for served in served_ports)
    (line,) = caplog.messages
    assert line.startswith("frontend 10.96.0.2:80/TCP cannot be steered: ")


async def test_the_first_problem_is_reported_with_a_separate_remedy(make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.2", POD))
    (served,) = served_ports

    def problem():
        return served.problem, served.hint, served.taken_by, served.is_unsteered

    assert problem() == ("", "", "", False)
    taken = Taken("a chain drops packets", "delete it", "ip evil in")
    served_ports.steered.note_unsteered({frontend("10.96.0.2"): taken})
    assert problem() == ("a chain drops packets", "delete it", "ip evil in", True)
    doubt = Taken("a chain may drop packets", "look", "ip evil in", is_certain=False)
    served_ports.steered.note_unsteered({frontend("10.96.0.2"): doubt})
    assert (problem(), served.perhaps_taken) == (("", "", "", False), doubt)
    served_ports.steered.note_unsteered({frontend("10.96.0.2"): "IPv4 is switched off"})
    assert problem() == ("IPv4 is switched off", "", "", True)
    served.not_listening = ListenError("cannot listen", cause="no port", hint="widen the range")
    assert problem() == ("cannot listen: no port", "widen the range", "", False)


async def test_many_unsteerable_frontends_are_logged_in_one_line(make, caplog):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    frontends = [frontend(f"10.96.0.{n}") for n in range(1, 9)]
    for f in frontends:
        snapshot = cluster.serve(f"web-{f.ip[-1]}", f.ip, POD)
    served_ports.follow(snapshot)
    caplog.set_level("INFO", "userspace_proxy.agent")
    for count in (8, 8, 7, 8, 0):
        causes = dict.fromkeys(frontends[:count], "IPv4 is switched off")
        served_ports.steered.note_unsteered(causes)
    first, second, last = caplog.records
    assert (first.frontends, first.cause, second.frontends) == (8, "IPv4 is switched off", 1)
    assert last.message == "all frontends are steered again"


async def test_a_change_that_was_not_steered_is_included_in_the_next_change(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    first = cluster.serve("web", "10.96.0.1", POD)
    targets = served_ports.follow(first)
    (served,) = served_ports
    served_ports.update(replace(served.plan, serving=Serving()))
    assert served_ports.steered.change().changed == {frontend("10.96.0.1"): REFUSE}
    served_ports.retire(served.plan.key)
    change = served_ports.steered.change()
    assert (change.changed, change.gone) == ({}, {frontend("10.96.0.1")})
    served_ports.open(served.plan, targets)
    change = served_ports.steered.change()
    assert (change.changed.keys(), change.gone) == ({frontend("10.96.0.1")}, frozenset())
    served_ports.steered.mark(change)
    assert served_ports.steered.change().targets == ()


async def test_an_unserved_frontend_is_refused_and_one_held_by_another_program_is_not_steered(make):
    served_ports = make(Bind.PROXY_PORT)
    web = frontend("10.96.0.1")
    served_ports.follow(Cluster().serve("web", web.ip, POD))
    (served,) = served_ports
    assert served.targets() == {web: served.listeners[web].address.port}
    served.listeners[web].is_serving = False
    assert served.targets() == {web: REFUSE}
    served.held_by_others = frozenset({web})
    assert served.targets() == {}
    served.held_by_others = frozenset()
    served.is_retired = True
    assert served.targets() == {}


async def test_weights_and_udp_ranges_apply_only_on_the_kernel_path(make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", POD, "192.0.2.2"))
    (served,) = served_ports
    ports = Frontend("10.96.0.1", 80, Protocol.UDP, last=90)
    first, second = served.plan.serving.endpoints
    weights, ranges = ((first, 199), (second, 100)), (DialledRange(ports.ip, 80, 90, 80),)
    serving = Serving((first, second), weights=weights, ranges=ranges)
    served.plan = replace(served.plan, frontends=(ports,), serving=serving)
    served.listeners = dict.fromkeys([ports], *served.listeners.values())
    for path, count in ((DataPath.USERSPACE, 1), (DataPath.KERNEL, 199), (DataPath.USERSPACE, 1)):
        served.choose_path(PathDecision(path, "why"))
        assert (served.targets()[ports] is REFUSE) is (count == 1)
        assert served.choices()[0].endpoints.count(first) == count
    assert served.path.why == "why"
    served.choose_path(PathDecision(DataPath.KERNEL))
    served.plan = replace(served.plan, has_coarse_weights=True)
    assert served.choices()[0].endpoints.count(first) < 34
