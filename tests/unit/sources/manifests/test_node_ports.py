"""Allocation of node ports for Services that don't specify them."""

from __future__ import annotations

import dataclasses

from userspace_proxy.model import Service, ServiceKey, ServicePort, ServiceType
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.sources.manifests.node_ports import allocate_node_ports, with_node_ports
from userspace_proxy.sources.manifests.written import Problem, WrittenService

HTTP = ServicePort("http", 80, "TCP")
DNS = (ServicePort("dns", 53, "UDP"), ServicePort("dns-tcp", 53, "TCP"))


def at(number: int, protocol: str = "TCP") -> ServicePort:
    return ServicePort("http", 80, protocol, number)


def node_port(name: str, *ports: ServicePort, **fields: object) -> WrittenService:
    fields = {"type": ServiceType.NODE_PORT, **fields}
    service = Service(ServiceKey("shop", name), ports or (HTTP,), **fields)
    return WrittenService(service, wants_node_ports=True)


def health(name: str, number: int = 0) -> WrittenService:
    kind = {"type": ServiceType.LOAD_BALANCER, "is_external_local": True}
    return node_port(name, at(31000), health_check_node_port=number, **kind)


def allocate(written: list[WrittenService]) -> tuple[list[Service], list[Problem]]:
    node_ports, problems = allocate_node_ports(written)
    services = [with_node_ports(w.service, node_ports[w.service.key]) for w in written]
    return services, problems


def numbers(services: list[Service]) -> list[list[int]]:
    return [[port.node_port for port in service.ports] for service in services]


def test_a_services_node_port_is_the_same_after_a_restart():
    web = node_port("web")
    [[before]] = numbers(allocate([web])[0])
    [_, [after]] = numbers(allocate([node_port("cart"), web])[0])
    assert before == after
    assert before in range(30086, 32768)


def test_a_service_needing_no_node_port_is_returned_unchanged():
    plain = Service(ServiceKey("shop", "web"), (HTTP,))
    assert allocate_node_ports([WrittenService(plain)]) == ({}, [])
    without = dataclasses.replace(plain, type=ServiceType.LOAD_BALANCER)
    [service], problems = allocate([WrittenService(without)])
    assert service is without
    assert problems == []


def test_tcp_and_udp_ports_with_the_same_number_share_a_node_port():
    [[udp, tcp]] = numbers(allocate([node_port("dns", *DNS)])[0])
    assert udp == tcp
    named = ServicePort("dns-tcp", 53, "TCP", 30053)
    assert numbers(allocate([node_port("dns", DNS[0], named)])[0]) == [[30053, 30053]]


def test_a_requested_node_port_displaces_an_allocation():
    [[first]] = numbers(allocate([node_port("web")])[0])
    for protocol in ("TCP", "UDP"):
        services, conflicts = allocate([node_port("web"), node_port("cart", at(first, protocol))])
        [[moved], [named]] = numbers(services)
        assert (named, conflicts) == (first, [])
        assert moved not in (0, first)


def test_tcp_and_udp_ports_of_two_services_may_name_the_same_node_port():
    of_tcp = [node_port("web", at(30080)), health("cart", 30081)]
    of_udp = [node_port("dns", at(30080, "UDP")), node_port("sip", at(30081, "UDP"))]
    services, conflicts = allocate([*of_tcp, *of_udp])
    assert (numbers(services), conflicts) == ([[30080], [31000], [30080], [30081]], [])


def test_an_allocated_health_check_node_port_is_stable_and_counts_as_tcp():
    [service], _ = allocate([health("web")])
    given = service.health_check_node_port
    assert given in range(30086, 32768)
    services, conflicts = allocate([health("web"), node_port("cart", at(31000))])
    assert (services[0].health_check_node_port, conflicts) == (given, [])


named = NoteKind.NODE_PORT_NAMED


def test_a_health_check_node_port_is_not_shared_with_another_service():
    services, [(_, problem)] = allocate([health("web", 31001), node_port("cart", at(31001))])
    assert numbers(services) == [[31000], [0]]
    assert problem == named("spec.ports[0].nodePort", "31001/TCP", "shop/web")
    services, [(_, problem)] = allocate([health("web", 31001), health("cart", 31001)])
    assert services[1].health_check_node_port == 0
    assert problem == named("spec.healthCheckNodePort", "31001/TCP", "shop/web")
    assert services[1].notes == (problem,)


def test_if_node_ports_run_out_a_port_gets_no_node_port_and_its_service_gets_a_note():
    many = [node_port(f"web-{n}") for n in range(2769)]
    services, [(_, problem)] = allocate(many)
    assert len({n for [n] in numbers(services)}) == 2769
    assert problem == NoteKind.NO_NODE_PORT_LEFT("spec.ports[0].nodePort", 30000, 32767)
    assert [s.notes for s in services if s.notes] == [(problem,)]
