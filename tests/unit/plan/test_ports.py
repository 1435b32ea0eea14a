"""Tests of the plan of one Service port and its Service's health check node port."""

from dataclasses import replace

import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.names import name_unresolved
from userspace_proxy.causes.nodes import no_node
from userspace_proxy.causes.notes import (
    kernel_path_unused,
    names_bug,
    path_not_allowed,
    range_without_proxy,
)
from userspace_proxy.causes.services import NOTES_MAX
from userspace_proxy.causes.slices import (
    none_ready,
    some_lack_port,
    too_many_at_all_ports,
    too_many_endpoints,
    too_many_in_namespace,
)
from userspace_proxy.model import (
    Balance,
    DataPath,
    Endpoint,
    Frontend,
    Handling,
    Hold,
    IPFamily,
    Protocol,
    ProxyProtocol,
    ServiceKey,
    ServicePort,
    ServiceType,
    Side,
    SlicePort,
)
from userspace_proxy.model.endpoint_names import (
    NameProblem,
    NameState,
    ResolvedSlice,
)
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.port_ranges import AskedRange
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import HealthCheck, Planner, PortPlan
from userspace_proxy.plan.bounds import ENDPOINTS_OF_NAMESPACE_MAX
from userspace_proxy.policy import ENDPOINTS_MAX, EndpointVerdict, NodeFacts
from userspace_proxy.policy.node_facts import API_SERVER

from ..model.samples import (
    CART,
    CART_IP,
    CART_IP_V6,
    HTTP,
    NOT_READY,
    POD_A,
    POD_B,
    POD_C,
    WEB,
    WEB_IP,
    service,
    slice_of,
)
from .planning import plan_of, say, store_of, the_port

ODD = NoteKind.NAMES_BUG("it is odd")


class TestOnePort:
    def test_a_port_plan_contains_frontends_verdicts_and_usable_endpoints(self):
        port = the_port(service(affinity_timeout_s=60), slice_of(POD_A.ip, POD_B.ip))
        assert port == PortPlan(
            key=port.key,
            protocol=Protocol.TCP,
            frontends=(Frontend(CART_IP, 80, Protocol.TCP),),
            verdicts=(
                EndpointVerdict(POD_A, is_usable=True, reason="ready"),
                EndpointVerdict(POD_B, is_usable=True, reason="ready"),
            ),
            serving=Serving((POD_A, POD_B), affinity_timeout_s=60),
        )
        assert str(port.key) == "shop/cart:http"

    def test_an_annotation_selects_a_path_only_if_allowed(self):
        given = (service(handling=Handling(path=DataPath.AUTO)), slice_of(POD_A.ip))
        assert the_port(*given).path.path is DataPath.AUTO
        port = the_port(*given, allowed_paths=(DataPath.USERSPACE,))
        assert port.path.path is DataPath.USERSPACE
        assert port.notes == (path_not_allowed("auto"),)

    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    @pytest.mark.parametrize(("selector", "notes"), [((("app", "web"),), 1), ((), 0)])
    def test_pods_lacking_the_port_get_a_note_unless_slices_are_handwritten(
        self, selector, notes, protocol
    ):
        cart = service(ports=[replace(HTTP, protocol=protocol, target="web")], selector=selector)
        others = slice_of("192.0.2.200", key="cart-2", ports=())
        of_pod = slice_of(POD_A.ip, ports=[SlicePort("http", 8080, protocol)])
        port = the_port(cart, of_pod, others)
        assert port.notes == notes * (some_lack_port("http", 1, 2, "web"),)
        assert port.serving.endpoints == (POD_A,)

    @pytest.mark.parametrize(
        ("key", "count"), [(API_SERVER, 1), (CART, 0), (ServiceKey("shop", API_SERVER.name), 0)]
    )
    def test_only_default_kubernetes_may_have_this_nodes_address_as_an_endpoint(self, key, count):
        own = {"addresses": (POD_A.ip,), "all_node_addresses": frozenset({POD_A.ip})}
        port = the_port(service(key), slice_of(POD_A.ip, of=key), allow_node_endpoints=False, **own)
        assert len(port.serving.endpoints) == count

    def test_without_usable_endpoints_a_port_is_in_the_plan_with_the_cause(self):
        assert the_port(service()).cause.code is CauseCode.NO_SLICE
        idle = the_port(service(), slice_of(Endpoint(POD_A.ip, **NOT_READY)))
        assert (idle.serving.endpoints, idle.cause) == ((), none_ready(1, 0, ()))
        assert len(idle.frontends) == 1

    @pytest.mark.parametrize(
        ("protocol", "removal_s", "leaving"),
        [
            pytest.param("UDP", 30.0, (POD_B,), id="flows"),
            pytest.param("UDP", None, (), id="flows-that-end-at-once"),
            pytest.param("TCP", 30.0, (), id="connections"),
        ],
    )
    def test_flows_may_use_leaving_endpoints_for_a_removal_time(self, protocol, removal_s, leaving):
        port = the_port(
            service(
                ports=(ServicePort("http", 80, protocol),), handling=Handling(removal_s=removal_s)
            ),
            slice_of(
                POD_A.ip,
                Endpoint(POD_B.ip, ready=False, terminating=True),
                ports=(SlicePort("http", 8080, protocol),),
            ),
        )
        assert (port.serving.endpoints, port.serving.leaving) == ((POD_A,), leaving)

    def test_endpoints_beyond_the_limit_are_omitted_with_a_note(self):
        ips = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(2 * ENDPOINTS_MAX)]
        slices = [
            slice_of(*ips[n : n + 1000], key=f"cart-{n}") for n in range(0, 2 * ENDPOINTS_MAX, 1000)
        ]
        port = the_port(service(), *slices)
        assert [address.ip for address in port.serving.endpoints] == ips[:ENDPOINTS_MAX]
        assert len(port.verdicts) == ENDPOINTS_MAX
        assert port.notes == (too_many_endpoints(10_000),)
        assert the_port(service(), *slices[:10]).notes == ()

    def test_at_the_endpoint_limit_the_first_ports_by_name_are_served_and_other_ports_refuse(
        self, monkeypatch
    ):
        monkeypatch.setattr("userspace_proxy.plan.ports.ENDPOINTS_OF_SERVICE_MAX", 20)
        names = [f"p{number:02}" for number in range(20)]
        ports = [ServicePort(name, 80 + n, "TCP") for n, name in enumerate((*names, "unlisted"))]
        targets = [SlicePort(name, 8080 + n, "TCP") for n, name in enumerate(names)]
        large = service(ports=ports, handling=Handling(Balance.RANDOM))
        things = slice_of(POD_A.ip, POD_B.ip, ports=targets), service(WEB, cluster_ips=(WEB_IP,))
        plan = plan_of(large, *things, slice_of(POD_A.ip, of=WEB, key="web-1"))
        served = [key.name.port for key, port in plan.ports.items() if port.serving.endpoints]
        assert served == [*names[:10], "http"]
        codes = [port.cause.code for port in plan.ports.values() if not port.serving.endpoints]
        assert codes == [CauseCode.TOO_MANY_ENDPOINTS] * 10 + [CauseCode.PORT_NAME_MISSING]
        beyond = next(port for port in plan.ports.values() if port.key.name.port == "p10")
        assert (beyond.verdicts, len(beyond.frontends)) == ((), 1)
        assert beyond.serving.is_refusing
        assert beyond.serving.handling.balance is Balance.RANDOM
        assert beyond.cause == too_many_at_all_ports(CART, 20)

    def test_source_ranges_count_per_port_and_ports_beyond_the_limit_refuse(self, monkeypatch):
        """Each socket has a filter in kernel memory: 1,300 ranges on 1,000 ports took 0.5 GiB."""
        monkeypatch.setattr("userspace_proxy.plan.ports.ENDPOINTS_OF_SERVICE_MAX", 10)
        given = service(
            ports=[ServicePort(f"p{n}", 80 + n, "TCP") for n in range(3)],
            type=ServiceType.LOAD_BALANCER,
            load_balancer_ips=("192.0.2.9",),
            load_balancer_source_ranges=("203.0.113.0/24", "198.51.100.0/24"),
        )
        ports = [SlicePort(f"p{n}", 8080 + n, "TCP") for n in range(3)]
        plan = plan_of(given, slice_of(POD_A.ip, ports=ports))
        limited = [p for p in plan.ports.values() if p.key.side is Side.LOAD_BALANCER]
        assert [len(port.serving.endpoints) for port in limited] == [1, 1, 0]
        assert [len(port.serving.admits or ()) for port in limited] == [2, 2, 0]
        assert limited[2].cause == too_many_at_all_ports(CART, 10)

    def test_the_endpoint_limit_of_a_service_counts_each_family_and_side(self, monkeypatch):
        monkeypatch.setattr("userspace_proxy.plan.ports.ENDPOINTS_OF_SERVICE_MAX", 5)
        given = service(cluster_ips=(CART_IP, CART_IP_V6), external_ips=("203.0.113.9",))
        given = replace(given, is_external_local=True)
        both = slice_of(POD_A.ip, POD_B.ip), slice_of("2001:db8::1", key="6", family=IPFamily.IPV6)
        allowed = {"external_ip_networks": ("203.0.113.0/24",)}
        plan = plan_of(given, *both, **allowed)
        assert [bool(port.serving.endpoints) for port in plan.ports.values()] == [True, True, True]
        monkeypatch.setattr("userspace_proxy.plan.ports.ENDPOINTS_OF_SERVICE_MAX", 4)
        plan = plan_of(given, *both, **allowed)
        assert [bool(port.serving.endpoints) for port in plan.ports.values()] == [True, True, False]

    def test_a_service_beyond_its_namespaces_limit_has_the_limit_as_its_cause(self, monkeypatch):
        monkeypatch.setattr("userspace_proxy.plan.planner.ENDPOINTS_OF_NAMESPACE_MAX", 1)
        given = service(ports=(HTTP, ServicePort("unlisted", 81, "TCP")))
        plan = plan_of(given, slice_of(POD_A.ip, POD_B.ip))
        listed, unlisted = (port.cause for port in plan.ports.values())
        assert listed == too_many_in_namespace("shop", ENDPOINTS_OF_NAMESPACE_MAX)
        assert unlisted.code is CauseCode.PORT_NAME_MISSING

    def test_an_orphaned_slice_of_a_similarly_named_service_is_the_cause(self):
        port = the_port(service(), slice_of(POD_A.ip, of=ServiceKey("shop", "carts")))
        assert port.cause.code is CauseCode.SLICE_ORPHANED

    def test_a_kernel_without_nft_hash_has_no_kernel_path_for_source_hash(self):
        facts = {"no_kernel_path": {Balance.SOURCE_HASH: "modprobe nft_hash"}}
        hashed = Handling(path=DataPath.KERNEL, balance=Balance.SOURCE_HASH)
        slices = slice_of(POD_A.ip)
        port = the_port(service(handling=hashed), slices, **facts)
        assert (port.path.path, port.path.why) == (DataPath.USERSPACE, "modprobe nft_hash")
        drawn = the_port(service(handling=Handling(path=DataPath.KERNEL)), slices, **facts)
        assert drawn.path.path is DataPath.KERNEL

    def test_a_port_has_the_weights_priorities_and_notes_from_its_slices(self):
        first = replace(slice_of(Endpoint(POD_A.ip, weight=5), Endpoint(POD_C.ip)), notes=(ODD,))
        second = slice_of(Endpoint(POD_B.ip, priority=1), key="cart-2")
        port = the_port(service(), first, second)
        assert port.serving.weights == ((POD_A, 5), (POD_B, 100), (POD_C, 100))
        assert port.serving.standbys == ((POD_B, 1),)
        assert port.notes == (names_bug("it is odd").replace(within="EndpointSlice shop/cart-1"),)

    def test_notes_of_slices_are_attached_to_the_first_port_of_a_family(self):
        ports = tuple(ServicePort(f"p{n:02}", n, "TCP") for n in range(1, 51))
        odd = replace(slice_of(Endpoint(POD_A.ip)), notes=(ODD,))
        planned = plan_of(service(ports=ports), odd).ports
        assert [str(key) for key, port in planned.items() if port.notes] == ["shop/cart:p01"]

    def test_slice_notes_above_the_maximum_are_omitted(self):
        slices = [
            replace(slice_of(Endpoint(POD_A.ip), key=f"cart-{number}"), notes=(ODD,))
            for number in range(100)
        ]
        assert len(the_port(service(), *slices).notes) == NOTES_MAX + 1


HERE = {"node_name": "node-1", "addresses": ("192.0.2.10",), "cluster_networks": ("10.1.0.0/16",)}
# The load-balancer IP is inside: with local routes, clients on this node may dial from it.
INSIDE = ("10.1.0.0/16", "127.0.0.0/8", "192.0.2.10/32", "203.0.113.8/32")
EXTERNAL = service(
    load_balancer_ips=("203.0.113.8",), type=ServiceType.LOAD_BALANCER, is_external_local=True
)
LOCAL_POD = Endpoint(POD_A.ip, node="node-1")
OTHER_POD = Endpoint(POD_B.ip, node="node-2")
IDLE_POD = Endpoint(POD_C.ip, node="node-1", **NOT_READY)


class TestPolicies:
    """Tests of traffic policies: usable endpoints, and clients that are refused or dropped."""

    def side(self, side, given, *endpoints):
        plan = plan_of(given, slice_of(*endpoints), **HERE)
        return next(port for key, port in plan.ports.items() if key.side is side)

    @pytest.mark.parametrize(
        ("endpoints", "usable", "admits", "is_refusing"),
        [
            pytest.param([LOCAL_POD, OTHER_POD], (POD_A,), None, False, id="one-here"),
            pytest.param([OTHER_POD], (), (), False, id="only-others-drop"),
            pytest.param([IDLE_POD], (), None, True, id="none-ready-refuse"),
            pytest.param([], (), None, True, id="none-refuse"),
        ],
    )
    def test_internal_policy_local_allows_only_local_endpoints(
        self, endpoints, usable, admits, is_refusing
    ):
        port = self.side(Side.ALL, service(is_internal_local=True), *endpoints)
        assert port.serving == Serving(usable, admits=admits)
        assert port.serving.is_refusing is is_refusing

    @pytest.mark.parametrize(
        ("endpoints", "usable", "outside", "admits"),
        [
            pytest.param(
                [LOCAL_POD, OTHER_POD], (POD_A, POD_B), (POD_A,), None, id="two-sets-of-endpoints"
            ),
            pytest.param([OTHER_POD], (POD_B,), (), INSIDE, id="only-others-drop-outside"),
            pytest.param([IDLE_POD], (), (), None, id="none-refuse-all"),
        ],
    )
    def test_external_policy_local_splits_outside_clients(self, endpoints, usable, outside, admits):
        port = self.side(Side.EXTERNAL, EXTERNAL, *endpoints)
        assert port.serving == Serving(usable, outside=outside, inside=INSIDE, admits=admits)
        assert port.serving.is_refusing is (not usable)

    def test_a_missing_node_object_is_the_cause_of_no_local_endpoints(self):
        missing = no_node("node-1", ("node-10",))
        given = service(is_internal_local=True)
        port = the_port(given, slice_of(OTHER_POD), **HERE, no_node=missing)
        assert port.cause == missing
        assert the_port(given, slice_of(LOCAL_POD), **HERE, no_node=missing).cause is None
        assert the_port(given, **HERE, no_node=missing).cause not in (None, missing)

    def test_external_traffic_policy_local_does_not_affect_the_cluster_ip(self):
        port = self.side(Side.ALL, EXTERNAL, OTHER_POD)
        assert port.serving == Serving((POD_B,))

    @pytest.mark.parametrize(
        ("endpoints", "ranges", "admits"),
        [
            pytest.param([LOCAL_POD], ("10.1.2.0/24",), ("10.1.2.0/24",), id="not-cut"),
            pytest.param([OTHER_POD], ("10.1.2.0/24",), ("10.1.2.0/24",), id="inside-only"),
            pytest.param([OTHER_POD], ("10.0.0.0/8",), ("10.1.0.0/16",), id="cut-to-inside"),
            pytest.param([OTHER_POD], ("198.51.100.0/24",), (), id="only-outside-none"),
            pytest.param([], ("203.0.113.0/24",), ("203.0.113.0/24",), id="refuse-clients-in-them"),
        ],
    )
    def test_source_ranges_combine_with_external_policy_local(self, endpoints, ranges, admits):
        given = replace(EXTERNAL, load_balancer_source_ranges=ranges)
        port = self.side(Side.LOAD_BALANCER, given, *endpoints)
        assert port.serving.admits == admits
        assert port.serving.is_refusing is (not endpoints)

    @pytest.mark.parametrize(
        ("given", "check"),
        [
            (EXTERNAL, None),
            (replace(EXTERNAL, health_check_node_port=30081), 2),
            (replace(EXTERNAL, health_check_node_port=30081, is_external_local=False), None),
            (replace(EXTERNAL, health_check_node_port=30081, type=ServiceType.NODE_PORT), None),
            (replace(EXTERNAL, health_check_node_port=30081, proxy_name="mesh"), None),
        ],
    )
    def test_a_health_check_counts_this_nodes_ready_endpoints(self, given, check):
        here = Endpoint(POD_C.ip, node="node-1")
        endpoints = slice_of(LOCAL_POD, OTHER_POD, here, Endpoint("192.0.2.4", **NOT_READY))
        plan = plan_of(given, endpoints, **HERE)
        expected = {} if check is None else {CART: HealthCheck(CART, 30081, check)}
        assert plan.health_checks == expected

    def test_a_health_check_follows_endpoint_changes(self):
        store = store_of(replace(EXTERNAL, health_check_node_port=30081), slice_of(LOCAL_POD))
        planner = Planner(NodeFacts(**HERE))
        counts = []
        for item in (slice_of(LOCAL_POD), slice_of(OTHER_POD), slice_of(LOCAL_POD, OTHER_POD)):
            store.put_slice(item)
            checks = planner.plan(store.snapshot()).health_checks
            counts.append(checks[CART].local_endpoints)
        store.delete_service(CART)
        assert counts == [1, 0, 1]
        assert planner.plan(store.snapshot()).health_checks == {}

    def test_external_traffic_policy_cluster_instead_of_local_removes_the_external_side(self):
        store, planner = store_of(EXTERNAL, slice_of(OTHER_POD)), Planner(NodeFacts(**HERE))
        sides = [[str(key.side) for key in planner.plan(store.snapshot()).ports]]
        store.put_service(replace(EXTERNAL, is_external_local=False))
        sides.append([str(key.side) for key in planner.plan(store.snapshot()).ports])
        assert sides == [["", "external"], [""]]


class TestEndpointsByName:
    NAMES = Handling(found_by_name=("203.0.113.1",), path=DataPath.KERNEL)

    def resolved(self, *ips, problems=()):
        item = slice_of(*ips)
        return ResolvedSlice(
            item.key, item.service, item.family, item.ports, item.endpoints, problems=problems
        )

    def test_endpoints_by_name_are_served_only_in_userspace(self):
        port = the_port(service(handling=self.NAMES), self.resolved("203.0.113.1"))
        assert port.path.path is DataPath.USERSPACE
        assert port.notes == (kernel_path_unused("an endpoint by name needs the proxy"),)

    def test_an_endpoint_name_without_an_address_is_the_cause(self):
        problem = NameProblem("db.example.com", NameState.UNRESOLVED, "no such name")
        port = the_port(service(), self.resolved(problems=(problem,)))
        assert port.cause == name_unresolved("db.example.com", "no such name")

    def test_an_unready_endpoint_takes_precedence_over_an_unresolved_name(self):
        item = slice_of(Endpoint(POD_A.ip, **NOT_READY))
        problem = NameProblem("db.example.com", NameState.STALE, "no server answers")
        made = replace(self.resolved(problems=(problem,)), endpoints=item.endpoints)
        assert the_port(service(), made).cause == none_ready(1, 0, ())


def test_a_number_shared_by_a_tcp_and_a_udp_port_is_recorded_at_both():
    ports = [
        ServicePort("dns", 53, "UDP"),
        ServicePort("dns-tcp", 53, "TCP"),
        ServicePort("metrics", 9153, "TCP"),
        ServicePort("other", 9153, "SCTP"),
    ]
    plan = plan_of(service(ports=ports))
    shared = {key.name.port: port.shared_number for key, port in plan.ports.items()}
    assert shared == {"dns": 53, "dns-tcp": 53, "metrics": 0}


LOCAL, FAR = service(is_internal_local=True), Endpoint("192.0.2.9", node="node-2")
LISTED = slice_of(FAR, key="cart-2")


@pytest.mark.parametrize(
    ("before", "change", "count"),
    [
        pytest.param([service(), LISTED], service(ports=[replace(HTTP, protocol="UDP")]), 8),
        pytest.param([LOCAL, LISTED], service(), 9),
        pytest.param([LOCAL], LISTED, 8),
    ],
    ids=["another-protocol", "another-policy", "same-policy"],
)
def test_a_changed_port_gets_no_endpoints_of_its_earlier_protocol_or_policy(before, change, count):
    near = [Endpoint(f"192.0.2.{n}", node="node-1") for n in range(1, 9)]
    by_both = slice_of(*near, ports=[SlicePort("http", 8080, one) for one in Protocol])
    store, planner = store_of(by_both, *before), Planner(NodeFacts(node_name="node-1"))
    planner.plan(store.snapshot())
    say(store, change)
    (port,) = planner.plan(store.snapshot()).ports.values()
    assert len(port.serving.endpoints) == count


@pytest.mark.parametrize(
    ("target", "asked", "facts", "why"),
    [
        pytest.param(53, (50, 60), {}, "", id="served"),
        pytest.param(65530, (50, 60), {}, "65527–65537 at", id="beyond-65535"),
        pytest.param(54, (1, 65535, True), {}, "2–65536 at", id="all"),
        pytest.param(
            *(53, (50, 60), {"no_kernel_path": {Balance.ROUND_ROBIN: "no path"}}, "no path"),
            id="no-kernel-path",
        ),
    ],
)
def test_a_port_is_served_without_an_invalid_range(target, asked, facts, why):
    dns = ServicePort("dns", 53, "UDP")
    ranged = Handling(port_ranges=(AskedRange("dns", *asked),))
    given = service(ports=[dns], handling=ranged)
    listed = slice_of(POD_A.ip, ports=[SlicePort("dns", target, "UDP")])
    port = the_port(given, listed, **facts)
    assert [endpoint.port for endpoint in port.serving.endpoints] == [target]
    assert port.cause is None
    is_served = not why
    assert bool(port.serving.ranges) is is_served
    assert any(frontend.last for frontend in port.frontends) is is_served
    assert (port.path.path is DataPath.KERNEL) is is_served
    notes = [str(note.get("why")) for note in port.notes]
    assert len(notes) == bool(why)
    assert why in "".join(notes)


@pytest.mark.parametrize(
    ("asked", "lost"),
    [
        ({}, ""),
        ({"path": DataPath.KERNEL}, ""),
        ({"hold": Hold(9.0), "proxy_protocol": ProxyProtocol.V2}, "hold"),
        (
            {"path": DataPath.KERNEL, "removal_s": 9.0, "balance": Balance.LEAST_CONNECTIONS},
            "balance least-connections, on-endpoint-removal",
        ),
    ],
)
def test_settings_that_a_udp_range_ignores_get_a_single_note(asked, lost):
    given = service(
        ports=[ServicePort("dns", 53, "UDP"), ServicePort("dns-tcp", 53, "TCP")],
        handling=Handling(port_ranges=(AskedRange("53", 50, 60),), **asked),
        load_balancer_ips=("192.0.2.100",),
        load_balancer_source_ranges=("192.0.2.0/24",),
    )
    ports = [SlicePort("dns", 53, "UDP"), SlicePort("dns-tcp", 53, "TCP")]
    plan = plan_of(given, slice_of(POD_A.ip, ports=ports), port_ranges="all")
    of_udp = [port for port in plan.ports.values() if port.protocol is Protocol.UDP]
    assert len(of_udp) == 2
    assert all(port.path.path is DataPath.KERNEL for port in of_udp)
    noted = [note for port in of_udp for note in port.notes]
    assert noted == ([range_without_proxy("53=50-60", lost)] if lost else [])
