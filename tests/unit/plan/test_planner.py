"""Tests of the planner, which makes plans from snapshots."""

import copy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.notes import header_without_tcp, names_bug
from userspace_proxy.causes.services import (
    external_ip_of,
    held_by,
    lost_to,
    unsupported_protocol,
)
from userspace_proxy.causes.slices import slice_headless
from userspace_proxy.cluster import Snapshot, Store
from userspace_proxy.model import (
    DataPath,
    Handling,
    IPFamily,
    Protocol,
    ServiceKey,
    ServicePort,
    SlicePort,
)
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.port_ranges import AskedRange
from userspace_proxy.plan import IgnoredService, Planner
from userspace_proxy.policy import NodeFacts, ignored

from ..kept import kept_by
from ..model.samples import (
    CART,
    CART_IP,
    CART_IP_V6,
    HTTP,
    POD_A,
    POD_B,
    POD_C,
    WEB,
    WEB_IP,
    service,
    slice_of,
)
from .drawn import ALL_FACTS, FACTS, KEYS, SERVICES, SLICES
from .planning import frontends, plan_of, say, snapshot_of, store_of, the_port

AT_8080 = (ServicePort("alt", 8080, "TCP"),)
AT_NODE = (ServicePort("http", 80, "TCP", 30080),)
OURS = "refused: it is an address that this proxy serves"


class TestManyPorts:
    def test_a_plan_after_an_abandoned_one_equals_a_fresh_plan(self):
        store, planner = store_of(service(), slice_of(POD_A.ip)), Planner(NodeFacts())
        planner.plan(store.snapshot())
        store.put_service(service(WEB, cluster_ips=(WEB_IP,)))
        count = sum(1 for _ in Planner(NodeFacts()).turns(store.snapshot()))
        for turns in range(count):
            planner = Planner(NodeFacts())
            abandoned = planner.turns(store.snapshot())
            for _ in range(turns):
                next(abandoned)
            assert planner.plan(store.snapshot()) == Planner(NodeFacts()).plan(store.snapshot())

    def test_planning_takes_at_least_a_turn_per_port_and_one_for_a_slice_of_many_ports(self):
        ports = [ServicePort(f"p{number}", number, "TCP") for number in range(1, 3_001)]
        services = [
            service(ServiceKey("shop", f"s{n}"), ports, (f"198.51.100.{n}",)) for n in range(2)
        ]
        long = slice_of(POD_A.ip, of=services[0].key, ports=20_000 * (SlicePort("x", 1, "TCP"),))
        planner, other = Planner(NodeFacts()), Planner(NodeFacts())
        count = sum(1 for _ in planner.turns(snapshot_of(*services)))
        assert len(planner.last.ports) == 6_000 < count
        assert sum(1 for _ in other.turns(snapshot_of(*services, long))) == count + 1

    def test_ports_are_sorted_by_key(self):
        keys = [ServiceKey("shop", name) for name in ("web", "cart", "till")]
        ports = (ServicePort("b", 2, "TCP"), ServicePort("a", 1, "TCP"))
        services = [
            service(key, ports, cluster_ips=(f"198.51.100.{n}", f"2001:db8::{n}"))
            for n, key in enumerate(keys)
        ]
        plan = plan_of(*services)
        assert len(plan.ports) == 12
        assert list(plan.ports) == sorted(plan.ports)


class TestOrphans:
    WEB_ORPHAN = slice_of(POD_A.ip, of=ServiceKey("shopp", "web"))

    def cause(self, planner, store):
        (port,) = planner.plan(store.snapshot()).ports.values()
        return port.cause and port.cause.code

    def test_the_cause_of_a_service_without_slices_names_a_probable_slice(self):
        store, planner = store_of(service(WEB)), Planner(NodeFacts())
        seen = [self.cause(planner, store)]
        store.put_slice(self.WEB_ORPHAN)
        seen.append(self.cause(planner, store))
        store.delete_slice(self.WEB_ORPHAN.key)
        seen.append(self.cause(planner, store))
        assert seen == [CauseCode.NO_SLICE, CauseCode.SLICE_ELSEWHERE, CauseCode.NO_SLICE]

    def test_a_services_own_headless_slice_is_named_before_other_slices(self):
        own = replace(slice_of(POD_A.ip, of=WEB), is_headless=True)
        store, planner = store_of(service(WEB), own, self.WEB_ORPHAN), Planner(NodeFacts())
        (port,) = planner.plan(store.snapshot()).ports.values()
        assert port.cause == slice_headless(WEB, own.key, False)

    def test_another_services_slice_does_not_replan_a_service_with_its_own_slices(self):
        store, planner = store_of(service(WEB), slice_of(POD_A.ip, of=WEB)), Planner(NodeFacts())
        assert self.cause(planner, store) is None
        store.put_slice(self.WEB_ORPHAN)
        planned = planner.planned_services
        assert self.cause(planner, store) is None
        assert planner.planned_services == planned

    def test_a_deleted_service_is_not_planned_when_a_slice_naming_it_appears(self):
        store, planner = store_of(service(WEB)), Planner(NodeFacts())
        assert self.cause(planner, store) is CauseCode.NO_SLICE
        store.delete_service(WEB)
        store.put_slice(self.WEB_ORPHAN)
        assert not planner.plan(store.snapshot()).ports


class TestIgnored:
    def test_a_service_that_lost_its_address_is_listed_with_the_owner(self):
        plan = plan_of(service(WEB), service(CART))
        assert frontends(plan) == {"shop/cart:http": ["198.51.100.7:80/TCP"]}
        taken = held_by("198.51.100.7:80/TCP", "shop/cart:http")
        assert plan.ignored == (IgnoredService(WEB, "http", taken, is_conflict=True),)

    def test_an_unnamed_port_that_lost_its_address_is_listed_by_number(self):
        nameless = (ServicePort("", 80, "TCP"),)
        plan = plan_of(service(CART, nameless), service(WEB, nameless))
        taken = held_by("198.51.100.7:80/TCP", "shop/cart")
        assert plan.ignored == (IgnoredService(WEB, "80", taken, is_conflict=True),)

    def test_notes_of_a_service_are_attached_to_its_first_served_port(self):
        ports = (HTTP, ServicePort("more", 81, "TCP"), ServicePort("other", 82, "TCP"))
        cart = service(
            CART,
            ports,
            cluster_ips=(CART_IP, CART_IP_V6),
            notes=(NoteKind.HEADER_WITHOUT_TCP(),),
            created="2",
        )
        slices = slice_of(POD_A.ip), slice_of("2001:db8::1", key="six", family=IPFamily.IPV6)
        odd = [replace(one, notes=(NoteKind.NAMES_BUG("it is odd"),)) for one in slices]
        store, planner = store_of(cart, *odd), Planner(NodeFacts())

        def noted():
            ports = planner.plan(store.snapshot()).ports
            return {str(k): [n.row for n in p.notes] for k, p in ports.items() if p.notes}

        at_first = {
            "shop/cart:http": [header_without_tcp, names_bug],
            "shop/cart:http (IPv6)": [names_bug],
        }
        assert noted() == at_first
        say(store, service(WEB, cluster_ips=(CART_IP,), created="1"))
        assert noted() == {
            "shop/cart:http (IPv6)": [header_without_tcp, lost_to, names_bug],
            "shop/cart:more": [names_bug],
        }
        store.delete_service(WEB)
        assert noted() == at_first

    def test_an_address_released_by_its_owner_passes_to_the_next_service(self):
        store, planner = store_of(service(CART), service(WEB)), Planner(NodeFacts())
        planner.plan(store.snapshot())
        store.delete_service(CART)
        plan = planner.plan(store.snapshot())
        assert frontends(plan) == {"shop/web:http": ["198.51.100.7:80/TCP"]}
        assert plan.ignored == ()


class TestEndpointsThatPointAtFrontends:
    """Dialling an endpoint that is a frontend of this proxy would create a loop."""

    AT_WEB = slice_of(WEB_IP, ports=(SlicePort("http", 80, "TCP"),))
    OTHERS = slice_of(*(f"10.1.0.{n}" for n in range(1, 9)), ports=AT_WEB.ports, key="cart-2")

    def reasons(self, plan):
        verdicts = [v for p in plan.ports.values() for v in p.verdicts]
        return [v.reason for v in verdicts if v.address.ip == WEB_IP]

    @pytest.mark.parametrize("slices", [(AT_WEB,), (AT_WEB, OTHERS)], ids=["alone", "among-many"])
    def test_an_endpoints_verdict_follows_the_service_that_owns_its_address(self, slices):
        store, planner = store_of(service(), *slices), Planner(NodeFacts())
        seen = [self.reasons(planner.plan(store.snapshot()))]
        for protocol in ("TCP", "UDP", "SCTP"):
            port = ServicePort("dns", 80, protocol)
            store.put_service(service(WEB, (port,), cluster_ips=(WEB_IP,)))
            seen.append(self.reasons(planner.plan(store.snapshot())))
        store.delete_service(WEB)
        seen.append(self.reasons(planner.plan(store.snapshot())))
        lacks = "refused: it is the ClusterIP of Service shop/web, which has no port 80/TCP"
        assert seen == [["ready"], [OURS], [lacks], [lacks], ["ready"]]


class TestEndpointsAtNodePorts:
    """Another node's proxy serves its node ports, and may route back to this node."""

    HERE, THERE = "198.51.100.1", "198.51.100.2"
    NODE_PORTS = slice_of(HERE, THERE, POD_A.ip, ports=(SlicePort("http", 30080, "TCP"),))
    FACTS = NodeFacts(addresses=(HERE,), all_node_addresses=frozenset({HERE, THERE}))

    def reasons(self, planner, store, facts=FACTS):
        plan = planner.plan(store.snapshot(), facts)
        return [
            v.reason
            for key, p in plan.ports.items()
            if key.name.service == CART
            for v in p.verdicts
        ]

    def test_endpoints_at_another_protocol_or_port_than_a_node_port_are_not_rejected(self):
        udp = (ServicePort("http", 80, "UDP", 30080),)
        store = store_of(service(), self.NODE_PORTS, service(WEB, udp, cluster_ips=(WEB_IP,)))
        assert set(self.reasons(Planner(NodeFacts()), store)) == {"ready"}

    def test_a_verdict_changes_as_a_node_port_is_added_and_removed(self):
        store, planner = store_of(service(), self.NODE_PORTS), Planner(NodeFacts())
        seen = [self.reasons(planner, store).count("ready")]
        needed = [planner.needs_node_addresses]
        for change in (
            lambda: store.put_service(service(WEB, AT_NODE, cluster_ips=(WEB_IP,))),
            lambda: store.delete_service(WEB),
        ):
            change()
            seen.append(self.reasons(planner, store).count("ready"))
            needed.append(planner.needs_node_addresses)
        assert seen == [3, 1, 3]
        assert needed == [False, True, False]

    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    def test_a_new_node_port_rejects_endpoints_at_that_port_of_other_nodes(self, protocol):
        # This plan doesn't depend on the addresses of this node.
        elsewhere = slice_of(self.THERE, ports=(SlicePort("http", 30080, protocol),))
        at_node = [replace(port, protocol=protocol) for port in AT_NODE]
        cart = service(ports=[replace(port, node_port=0) for port in at_node])
        store, planner = store_of(cart, elsewhere), Planner(NodeFacts())
        seen = self.reasons(planner, store)
        store.put_service(service(WEB, at_node, cluster_ips=(WEB_IP,)))
        seen += self.reasons(planner, store)
        store.delete_service(WEB)
        seen += self.reasons(planner, store)
        assert seen == ["ready", "refused: it is a node port of a node", "ready"]

    def test_node_addresses_are_needed_while_endpoints_have_host_names(self):
        by_name = Handling(found_by_name=("203.0.113.1",))
        store, planner = store_of(service(handling=by_name)), Planner(NodeFacts())
        planner.plan(store.snapshot())
        assert planner.needs_node_addresses
        store.put_service(service())
        planner.plan(store.snapshot())
        assert not planner.needs_node_addresses

    def test_services_without_an_endpoint_on_a_node_are_not_replanned(self):
        at_pod = slice_of(POD_A.ip, ports=(SlicePort("http", 30080, "TCP"),))
        store, planner = store_of(service(), at_pod), Planner(NodeFacts())
        self.reasons(planner, store)
        planned = planner.planned_services
        store.put_service(service(WEB, AT_NODE, cluster_ips=(WEB_IP,)))
        assert self.reasons(planner, store) == ["ready"]
        assert planner.needs_node_addresses
        assert planner.planned_services == planned + 1


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
            pytest.param(slice_of(POD_A.ip), 0, id="no-change"),
            pytest.param(slice_of(POD_B.ip), 1, id="endpoints"),
            pytest.param(service(CART, affinity_timeout_s=60), 1, id="affinity"),
            pytest.param(service(CART, cluster_ips=("198.51.100.9",)), 1, id="address"),
            pytest.param(service(ServiceKey("shop", "till")), 1, id="new-service"),
        ],
    )
    def test_only_changed_services_are_replanned(self, store, thing, planned):
        planner = Planner(NodeFacts())
        planner.plan(store.snapshot())
        assert planner.planned_services == 2
        say(store, thing)
        planner.plan(store.snapshot())
        assert planner.planned_services == 2 + planned

    def test_the_port_of_an_unchanged_service_is_the_same_object(self, store):
        planner = Planner(NodeFacts())
        before = planner.plan(store.snapshot()).ports
        store.put_slice(slice_of(POD_B.ip))
        after = planner.plan(store.snapshot()).ports
        assert [after[key] is before[key] for key in before] == [False, True]

    def test_changing_one_of_five_thousand_endpoints_evaluates_only_that_endpoint(self, store):
        planner = Planner(NodeFacts())
        ips = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(5000)]
        for i in range(0, 5000, 100):
            store.put_slice(slice_of(*ips[i : i + 100], key=f"cart-{i}"))
        port, _ = planner.plan(store.snapshot()).ports.values()
        assert len(port.serving.endpoints) == 5001
        known = {id(verdict) for verdict in port.verdicts}
        store.put_slice(slice_of("10.9.9.9", *ips[1:100], key="cart-0"))
        port, _ = planner.plan(store.snapshot()).ports.values()
        assert len(port.serving.endpoints) == 5001
        assert planner.planned_services == 3
        new = [verdict.address.ip for verdict in port.verdicts if id(verdict) not in known]
        assert new == ["10.9.9.9"]

    def test_a_new_service_replans_only_services_whose_endpoints_it_affects(self, store):
        planner = Planner(NodeFacts())
        planner.plan(store.snapshot())
        store.put_service(service(ServiceKey("shop", "till"), cluster_ips=(POD_C.ip,)))
        planner.plan(store.snapshot())
        assert planner.planned_services == 3
        store.put_service(service(ServiceKey("shop", "bank"), AT_8080, cluster_ips=(POD_B.ip,)))
        planner.plan(store.snapshot())
        assert planner.planned_services == 5

    @pytest.mark.parametrize(
        ("facts", "planned"),
        [
            pytest.param(None, 0, id="missing"),
            pytest.param(NodeFacts(), 0, id="equal"),
            pytest.param(NodeFacts(zone="east"), 2, id="different"),
        ],
    )
    def test_only_changed_node_facts_replan_all_services(self, store, facts, planned):
        planner = Planner(NodeFacts())
        planner.plan(store.snapshot())
        planner.plan(store.snapshot(), facts)
        assert planner.planned_services == 2 + planned

    def test_the_planner_uses_the_last_given_node_facts(self, store):
        planner = Planner(NodeFacts())
        planner.plan(store.snapshot(), NodeFacts(proxy_name="mesh"))
        assert planner.plan(store.snapshot()).ports == {}

    def test_a_frontend_changing_its_kind_is_evaluated_again(self):
        thief = service(WEB, cluster_ips=(WEB_IP,), load_balancer_ips=("203.0.113.9",))
        owner = service(ServiceKey("shop", "dns"), AT_8080, cluster_ips=("203.0.113.9",))
        store, facts = store_of(thief, owner), NodeFacts(external_ip_networks=("203.0.113.0/24",))
        planner = Planner(facts)
        assert planner.plan(store.snapshot()).ignored == ()
        store.put_service(
            replace(thief, load_balancer_ips=(), external_ips=thief.load_balancer_ips)
        )
        assert [i.cause for i in planner.plan(store.snapshot()).ignored] == [
            external_ip_of("203.0.113.9", owner.key)
        ]

    def test_planning_renders_no_cause_texts(self, monkeypatch):
        worded = []

        def words(protocol):
            worded.append(protocol)
            return ""

        counting = replace(unsupported_protocol, words=words)
        monkeypatch.setattr(ignored, "unsupported_protocol", counting)
        planner = Planner(NodeFacts())
        sctp = (ServicePort("sip", 5060, "SCTP"),)
        store = store_of(*(service(ServiceKey("shop", f"s{n}"), sctp) for n in range(20)))
        planner.plan(store.snapshot())
        store.put_service(service(CART, sctp))
        rows = [item.cause.row for item in planner.plan(store.snapshot()).ignored]
        assert (rows, worded) == ([counting] * 21, [])

    def test_a_service_has_no_kernel_path_elements_until_planned(self):
        kernel = service(handling=Handling(path=DataPath.KERNEL))
        store, planner = store_of(kernel, slice_of(POD_A.ip)), Planner(NodeFacts())
        state = store.snapshot().services[CART]
        assert planner.kernel_elements(state) == 0
        planner.plan(store.snapshot())
        assert planner.kernel_elements(state) == 3 + 1

    def test_a_returned_plan_is_not_changed_by_later_plans(self, store):
        planner = Planner(NodeFacts())
        before = planner.plan(store.snapshot())
        kept = copy.deepcopy(before)
        store.put_slice(slice_of(POD_B.ip))
        planner.plan(store.snapshot())
        store.replace_services([])
        planner.plan(store.snapshot())
        assert before == kept


ROUNDS = st.lists(
    st.tuples(st.lists(SERVICES, max_size=4), st.lists(SLICES, max_size=4), ALL_FACTS),
    max_size=6,
)


@given(ROUNDS)
def test_equal_snapshots_give_equal_plans(rounds):
    store, planner = Store(), Planner(FACTS)
    for services, slices, facts in rounds:
        store.replace_services(services)
        store.replace_slices(slices)
        snapshot = store.snapshot()
        other_way_round = Snapshot(dict(reversed([*snapshot.services.items()])), snapshot.node)
        plan, anew = planner.plan(snapshot, facts), Planner(facts).plan(other_way_round)
        assert plan == anew
        # Equal reprs prove that the order is also the same.
        assert repr((plan.ports, plan.health_checks)) == repr((anew.ports, anew.health_checks))


@given(st.lists(st.one_of(SERVICES, SLICES, ALL_FACTS, KEYS), max_size=12))
def test_incremental_planning_equals_a_fresh_plan(changes):
    store, facts, planner = Store(), FACTS, Planner(FACTS)
    for change in changes:
        if isinstance(change, NodeFacts):
            facts = change
        elif isinstance(change, ServiceKey):
            store.delete_service(change)
        else:
            say(store, change)
        plan, fresh = planner.plan(store.snapshot(), facts), Planner(facts)
        assert repr(plan) == repr(fresh.plan(store.snapshot()))
        assert kept_by(planner) == kept_by(fresh)


class TestRangesWithoutRules:
    FACTS = NodeFacts(port_ranges="all", no_kernel_path={Protocol.TCP: "it has none"})
    IP = "192.0.2.100"

    def ranged(self, name, asked, **fields):
        """Return a Service with port 80, a range and a load-balancer IP."""
        return service(
            ServiceKey("shop", name),
            load_balancer_ips=(self.IP,),
            handling=Handling(port_ranges=(AskedRange("http", *asked),)),
            **fields,
        )

    def ports_of(self, plan, name):
        """Return the numbers of a Service's frontends on the load-balancer IP."""
        (port,) = (port for key, port in plan.ports.items() if key.name.name == name)
        assert not any(frontend.last for frontend in port.frontends)
        return {frontend.port for frontend in port.frontends if frontend.ip == self.IP}

    def test_each_port_of_a_range_is_a_frontend_unless_claimed_by_another_service(self):
        web = self.ranged("web", (79, 178))
        other = service(
            CART,
            ports=(ServicePort("alt", 90, "TCP"), ServicePort("udp", 91, "UDP")),
            cluster_ips=(CART_IP,),
            load_balancer_ips=(self.IP,),
            created="9",
        )
        store, planner = store_of(web), Planner(self.FACTS)
        whole = self.ports_of(planner.plan(store.snapshot()), "web")
        assert whole == {*range(79, 179)}
        store.put_service(other)
        plan = planner.plan(store.snapshot())
        assert self.ports_of(plan, "web") == whole - {90}
        assert plan == Planner(self.FACTS).plan(store.snapshot())
        assert not any(port.notes for port in plan.ports.values())
        store.delete_service(CART)
        assert self.ports_of(planner.plan(store.snapshot()), "web") == whole

    def test_the_first_frontend_of_a_range_is_the_service_port_itself(self):
        port = the_port(self.ranged("web", (1, 100)), no_kernel_path={Protocol.TCP: "it has none"})
        assert port.frontends[0].port == 80
