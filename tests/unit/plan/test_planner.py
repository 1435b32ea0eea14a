"""Snapshots in, plans out."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.cluster import Snapshot, Store
from userspace_proxy.model import (
    Endpoint,
    Frontend,
    IPFamily,
    Protocol,
    ServiceKey,
    ServicePort,
    SlicePort,
    SocketAddress,
)
from userspace_proxy.plan import Ignored, Planner, PortPlan
from userspace_proxy.policy import EndpointVerdict, NodeFacts

from ..model.samples import (
    CART,
    CART_IP,
    CART_IP_V6,
    HTTP,
    NOT_READY,
    POD_A,
    POD_B,
    WEB,
    WEB_IP,
    service,
    slice_of,
)

OURS = "refused: it is an address that this proxy serves"


def snapshot_of(*things):
    """Make a snapshot of Services and slices."""
    return store_of(*things).snapshot()


def store_of(*things):
    store = Store()
    for thing in things:
        say(store, thing)
    return store


def say(store, thing):
    if hasattr(thing, "endpoints"):
        store.put_slice(thing)
    else:
        store.put_service(thing)


def plan_of(*things, **facts):
    return Planner(NodeFacts(**facts)).plan(snapshot_of(*things))


def the_port(*things, **facts):
    """Plan things that come to one port, and return that."""
    (port,) = plan_of(*things, **facts).ports.values()
    return port


def frontends(plan):
    return {str(key): [str(f) for f in port.frontends] for key, port in plan.ports.items()}


class TestOnePort:
    def test_it_has_frontends_endpoints_and_turns(self):
        port = the_port(service(affinity_timeout_s=60), slice_of(POD_A.ip, POD_B.ip))
        assert port == PortPlan(
            key=port.key,
            protocol=Protocol.TCP,
            frontends=(Frontend(CART_IP, 80, Protocol.TCP),),
            endpoints=(
                EndpointVerdict(POD_A, is_usable=True, reason="ready"),
                EndpointVerdict(POD_B, is_usable=True, reason="ready"),
            ),
            usable=(POD_A, POD_B),
            reason="",
            affinity_timeout_s=60,
        )
        assert str(port.key) == "shop/cart:http"

    def test_without_usable_endpoints_it_stays_in_the_plan_with_the_reason(self):
        assert the_port(service()).reason == "it has no endpoints"
        idle = the_port(service(), slice_of(Endpoint(POD_A.ip, **NOT_READY)))
        assert (idle.usable, idle.reason) == ((), "1 endpoint: 1 not ready")
        assert len(idle.frontends) == 1

    def test_the_switch_for_loopback_endpoints_is_heard(self):
        things = (service(), slice_of("127.0.0.1"))
        assert the_port(*things).usable == ()
        assert the_port(*things, allow_loopback_endpoints=True).usable == (
            SocketAddress("127.0.0.1", 8080),
        )

    @pytest.mark.parametrize(
        ("given", "notes"),
        [
            pytest.param(service(), (), id="nothing-unusual"),
            pytest.param(
                service(ports=(ServicePort("http", 80, "TCP", 30080),)),
                ("node port 30080 is not served by this version",),
                id="node-port",
            ),
            pytest.param(
                service(external_ips=("203.0.113.9",)),
                ("external IP 203.0.113.9 is not served",),
                id="external-ip",
            ),
            pytest.param(
                service(load_balancer_ips=("203.0.113.8",)),
                ("load-balancer IP 203.0.113.8 is not served by this version",),
                id="load-balancer-ip",
            ),
            pytest.param(
                service(is_internal_local=True),
                ("internalTrafficPolicy Local is treated as Cluster by this version",),
                id="internal-local",
            ),
            pytest.param(
                service(
                    ports=(ServicePort("http", 80, "TCP", 30080),), external_ips=("203.0.113.9",)
                ),
                (
                    "node port 30080 is not served by this version",
                    "external IP 203.0.113.9 is not served",
                ),
                id="two-of-them",
            ),
        ],
    )
    def test_what_is_asked_for_and_not_served_is_noted(self, given, notes):
        assert the_port(given).notes == notes


class TestManyPorts:
    def test_both_families_stand_in_one_plan_each_with_its_endpoints(self):
        plan = plan_of(
            service(cluster_ips=(CART_IP, CART_IP_V6)),
            slice_of(POD_A.ip),
            slice_of("2001:db8::1", key="cart-6", family=IPFamily.IPV6),
        )
        usable = {str(key): [str(a) for a in port.usable] for key, port in plan.ports.items()}
        assert usable == {
            "shop/cart:http": ["192.0.2.1:8080"],
            "shop/cart:http (IPv6)": ["[2001:db8::1]:8080"],
        }

    def test_each_port_has_the_endpoints_of_its_name(self):
        targets = (SlicePort("http", 8080, "TCP"), SlicePort("dns", 5353, "UDP"))
        plan = plan_of(
            service(ports=(HTTP, ServicePort("dns", 53, "UDP"))),
            slice_of(POD_A.ip, ports=targets),
        )
        usable = {str(key): [a.port for a in port.usable] for key, port in plan.ports.items()}
        assert usable == {"shop/cart:dns": [5353], "shop/cart:http": [8080]}

    def test_ports_are_sorted_by_key_whatever_the_order_of_the_services(self):
        keys = [ServiceKey("shop", name) for name in ("web", "cart", "till")]
        ports = (ServicePort("b", 2, "TCP"), ServicePort("a", 1, "TCP"))
        services = [
            service(key, ports, cluster_ips=(f"198.51.100.{n}", f"2001:db8::{n}"))
            for n, key in enumerate(keys)
        ]
        plan = plan_of(*services)
        assert len(plan.ports) == 12
        assert list(plan.ports) == sorted(plan.ports)

    def test_the_plan_bears_the_revision_of_its_snapshot(self):
        store, planner = store_of(service()), Planner(NodeFacts())
        assert planner.plan(store.snapshot()).revision == 1
        store.put_slice(slice_of(POD_A.ip))
        assert planner.plan(store.snapshot()).revision == 2


class TestIgnored:
    def test_a_service_that_is_not_ours_is_listed_with_the_reason(self):
        plan = plan_of(service(cluster_ips=(), is_headless=True), service(WEB, proxy_name="mesh"))
        assert not plan.ports
        assert plan.ignored == (
            Ignored(
                CART,
                "",
                "it is headless (clusterIP: None): clients reach its endpoints directly",
            ),
            Ignored(WEB, "", "its label gives it to the service proxy 'mesh'"),
        )

    def test_a_port_that_is_not_carried_is_listed_beside_those_that_are(self):
        plan = plan_of(service(ports=(HTTP, ServicePort("sig", 3868, "SCTP"))))
        assert list(frontends(plan)) == ["shop/cart:http"]
        assert [(i.port, i.reason) for i in plan.ignored] == [
            ("sig", "protocol SCTP is not carried (TCP and UDP are)")
        ]

    def test_a_service_that_lost_its_address_is_listed_with_the_holder(self):
        plan = plan_of(service(WEB), service(CART))
        assert frontends(plan) == {"shop/cart:http": ["198.51.100.7:80/TCP"]}
        reason = "198.51.100.7:80/TCP is already held by shop/cart:http"
        assert plan.ignored == (Ignored(WEB, "http", reason, is_conflict=True),)

    def test_a_port_without_a_name_that_lost_its_address_is_listed_by_its_number(self):
        nameless = (ServicePort("", 80, "TCP"),)
        plan = plan_of(service(CART, nameless), service(WEB, nameless))
        reason = "198.51.100.7:80/TCP is already held by shop/cart"
        assert plan.ignored == (Ignored(WEB, "80", reason, is_conflict=True),)

    def test_a_service_that_lost_one_of_two_addresses_keeps_the_other(self):
        plan = plan_of(service(CART), service(WEB, cluster_ips=(CART_IP, WEB_IP)))
        assert frontends(plan)["shop/web:http"] == ["198.51.100.8:80/TCP"]
        assert [i.service for i in plan.ignored] == [WEB]

    def test_an_address_that_its_holder_gives_up_passes_to_the_next(self):
        store, planner = store_of(service(CART), service(WEB)), Planner(NodeFacts())
        planner.plan(store.snapshot())
        store.delete_service(CART)
        plan = planner.plan(store.snapshot())
        assert frontends(plan) == {"shop/web:http": ["198.51.100.7:80/TCP"]}
        assert plan.ignored == ()


class TestEndpointsThatPointAtFrontends:
    """A Service whose endpoint is a frontend of ours would lead us back to ourselves."""

    AT_WEB = slice_of(WEB_IP, ports=(SlicePort("http", 80, "TCP"),))

    def reasons(self, plan):
        return [v.reason for p in plan.ports.values() for v in p.endpoints]

    def test_its_own_frontend_is_refused(self):
        at_itself = slice_of(CART_IP, ports=(SlicePort("http", 80, "TCP"),))
        assert self.reasons(plan_of(service(), at_itself)) == [OURS]

    def test_the_frontend_of_another_service_is_refused(self):
        plan = plan_of(service(), self.AT_WEB, service(WEB, cluster_ips=(WEB_IP,)))
        assert self.reasons(plan) == [OURS]

    def test_another_protocol_on_that_address_and_port_is_not(self):
        udp = service(WEB, (ServicePort("dns", 80, "UDP"),), cluster_ips=(WEB_IP,))
        assert self.reasons(plan_of(service(), self.AT_WEB, udp)) == ["ready"]

    def test_the_verdict_follows_the_coming_and_going_of_the_other_service(self):
        store, planner = store_of(service(), self.AT_WEB), Planner(NodeFacts())
        seen = [self.reasons(planner.plan(store.snapshot()))]
        store.put_service(service(WEB, cluster_ips=(WEB_IP,)))
        seen.append(self.reasons(planner.plan(store.snapshot())))
        store.delete_service(WEB)
        seen.append(self.reasons(planner.plan(store.snapshot())))
        assert seen == [["ready"], [OURS], ["ready"]]


class TestWhatIsKept:
    @pytest.fixture
    def store(self):
        return store_of(
            service(CART),
            slice_of(POD_A.ip),
            service(WEB, cluster_ips=(WEB_IP,)),
            slice_of(POD_B.ip, key="web-1", of=WEB),
        )

    @pytest.mark.parametrize(
        ("thing", "planned"),
        [
            pytest.param(slice_of(POD_A.ip), 0, id="nothing-new"),
            pytest.param(slice_of(POD_B.ip), 1, id="endpoints-of-one"),
            pytest.param(service(CART, affinity_timeout_s=60), 1, id="affinity-of-one"),
            pytest.param(service(CART, cluster_ips=("198.51.100.9",)), 1, id="address-of-one"),
            pytest.param(service(ServiceKey("shop", "till")), 1, id="a-service-more"),
        ],
    )
    def test_only_changed_services_are_planned_anew(self, store, thing, planned):
        planner = Planner(NodeFacts())
        planner.plan(store.snapshot())
        assert planner.planned_services == 2
        say(store, thing)
        planner.plan(store.snapshot())
        assert planner.planned_services == 2 + planned

    def test_the_port_of_an_unchanged_service_stays_the_same_object(self, store):
        planner = Planner(NodeFacts())
        before = planner.plan(store.snapshot()).ports
        store.put_slice(slice_of(POD_B.ip))
        after = planner.plan(store.snapshot()).ports
        assert [after[key] is before[key] for key in before] == [False, True]

    def test_a_plan_never_changes_after_it_was_handed_out(self, store):
        planner = Planner(NodeFacts())
        before = planner.plan(store.snapshot())
        kept = copy.deepcopy(before)
        store.put_slice(slice_of(POD_B.ip))
        planner.plan(store.snapshot())
        store.replace_services([])
        planner.plan(store.snapshot())
        assert before == kept

    def test_a_service_that_is_gone_is_gone_from_the_plan(self, store):
        planner = Planner(NodeFacts())
        planner.plan(store.snapshot())
        store.delete_service(CART)
        assert list(frontends(planner.plan(store.snapshot()))) == ["shop/web:http"]
        assert planner.plan(Snapshot({})).ports == {}


IPS = ["198.51.100.7", "198.51.100.8", "2001:db8::7"]
KEYS = st.sampled_from([CART, WEB, ServiceKey("bank", "till")])
PORTS = [HTTP, ServicePort("", 80, "TCP"), ServicePort("a", 80, "UDP"), ServicePort("s", 9, "SCTP")]
SERVICES = st.builds(
    service,
    KEYS,
    st.lists(st.sampled_from(PORTS), max_size=2, unique_by=lambda port: port.name),
    st.lists(st.sampled_from(IPS), max_size=2, unique=True),
    created=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
    proxy_name=st.sampled_from([None, None, None, "mesh"]),
)
# Port 80 on some of these addresses is a frontend of one of the Services, or becomes one.
SLICES = st.builds(
    lambda ips, name, of: slice_of(
        *ips, key=name, of=of, ports=[SlicePort(port.name, 80, port.protocol) for port in PORTS]
    ),
    st.lists(st.sampled_from(["192.0.2.1", "127.0.0.1", *IPS[:2]]), max_size=2),
    st.sampled_from(["a", "b"]),
    KEYS,
)
ROUNDS = st.lists(
    st.tuples(st.lists(SERVICES, max_size=4), st.lists(SLICES, max_size=4)), max_size=6
)


@given(ROUNDS)
def test_equal_snapshots_give_equal_plans(rounds):
    store, planner = Store(), Planner(NodeFacts())
    for services, slices in rounds:
        store.replace_services(services)
        store.replace_slices(slices)
        snapshot = store.snapshot()
        other_way_round = Snapshot(dict(reversed(snapshot.services.items())), snapshot.node)
        plan, anew = planner.plan(snapshot), Planner(NodeFacts()).plan(other_way_round)
        assert plan == anew
        # Byte for byte: in the same order too.
        assert repr(plan.ports) == repr(anew.ports)
