"""The combined content of all manifests."""

from __future__ import annotations

import pytest

from userspace_proxy.causes.notes import cause_of
from userspace_proxy.model import ServiceKey, SliceKey
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.sources.manifests.files import Look
from userspace_proxy.sources.manifests.state import ManifestState

WEB = ServiceKey("shop", "web")
LABEL = "kubernetes.io/service-name"


def service(name: str = "web", **spec: object) -> str:
    fields = "".join(f", {key}: {value}" for key, value in spec.items())
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n"
        f"spec: {{ports: [{{port: 80}}]{fields}}}\n---\n"
    )


def endpoint_slice(ip: str, name: str = "web-1") -> str:
    return (
        f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        f"metadata: {{name: {name}, namespace: shop, labels: "
        f"{{{LABEL}: web}}}}\nendpoints: [{{addresses: [{ip}]}}]\n---\n"
    )


def without_service(text: str) -> str:
    return text.replace("service-name", "service-nam")


def endpoints(ip: str) -> str:
    return (
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web, namespace: shop}\n"
        f"subsets: [{{addresses: [{{ip: {ip}}}]}}]\n---\n"
    )


@pytest.fixture
def state():
    return ManifestState(node_name="alice", service_cidrs=["10.96.0.0/16"])


def addresses(state: ManifestState) -> list[str]:
    return [e.ip for item in state.snapshot.services[WEB].slices for e in item.endpoints]


def test_a_missing_cluster_ip_is_allocated_and_an_explicit_address_is_kept(state):
    text = service() + service("cart", clusterIP="10.96.7.1")
    text += service("db", clusterIP="None") + service(
        "far", type="ExternalName", externalName="shop.example"
    )
    state.take(Look({"shop.yaml": text}))
    ips = {key.name: s.service.cluster_ips for key, s in state.snapshot.services.items()}
    assert ips == {"web": ("10.96.67.208",), "cart": ("10.96.7.1",), "db": (), "far": ()}


def test_a_service_without_an_available_address_is_reported():
    state = ManifestState(node_name="", service_cidrs=["10.96.0.1/32"])
    state.take(Look({"a.yaml": service(clusterIP="10.96.0.1"), "b.yaml": service("cart")}))
    assert state.problems == ("b.yaml:1: spec.clusterIP: no address is left in 10.96.0.1/32",)
    assert state.snapshot.services[ServiceKey("shop", "cart")].service.cluster_ips == ()


def services_of_problems(state: ManifestState) -> list[tuple[str, ...]]:
    return [tuple(item.services) for item in state.rejected]


def test_an_unparsable_part_of_a_file_affects_the_services_it_contained(state):
    state.take(Look({"a.yaml": service() + service("cart")}))
    state.take(Look({"a.yaml": service("cart") + "kind: ["}))
    assert services_of_problems(state) == [("shop/web",)]


def test_a_removed_object_is_kept_while_its_file_has_another_mistake(state):
    broken = without_service(endpoint_slice("x", "cart-1"))
    state.take(Look({"a.yaml": service() + endpoint_slice("10.244.1.7")}))
    state.take(Look({"a.yaml": service() + broken}))
    assert addresses(state) == ["10.244.1.7"]
    assert [(item.services, item.keeps) for item in state.rejected] == [((), ("shop/web",))]


def test_a_mistake_is_attributed_to_the_service_of_the_kept_object(state):
    good = endpoint_slice("10.244.1.7")
    state.take(Look({"a.yaml": service() + good}))
    state.take(Look({"a.yaml": service() + without_service(endpoint_slice("x"))}))
    assert [(item.services, item.keeps) for item in state.rejected] == [(("shop/web",), ())]


def test_a_slice_losing_its_service_label_is_treated_as_by_an_api_server(state):
    good = endpoint_slice("10.244.1.7")
    state.take(Look({"a.yaml": service() + good}))
    state.take(Look({"a.yaml": service() + without_service(good)}))
    assert (state.rejected, addresses(state)) == ((), [])
    ((of, (orphan,)),) = state.snapshot.orphans.items()
    assert (of, orphan.key) == (ServiceKey("shop", ""), SliceKey("shop", "web-1"))


def test_the_problem_of_a_duplicate_slice_without_a_service_affects_no_service(state):
    text = without_service(endpoint_slice("10.244.1.7"))
    state.take(Look({"a.yaml": text, "b.yaml": text}))
    assert services_of_problems(state) == [()]


def test_the_problem_of_a_duplicate_slice_is_attributed_to_its_service(state):
    state.take(Look({"a.yaml": service() + endpoint_slice("10.244.1.7")}))
    state.take(Look({"b.yaml": service() + endpoint_slice("10.244.1.8")}))
    assert services_of_problems(state) == [("shop/web",), ("shop/web",)]
    assert {item.object for item in state.rejected} == {""}, "the first slice is served"


def test_an_invalid_yaml_file_keeps_its_objects_while_other_files_change(state):
    state.take(Look({"a.yaml": service(), "b.yaml": endpoint_slice("10.244.1.7")}))
    state.take(Look({"a.yaml": "kind: [", "b.yaml": endpoint_slice("10.244.1.8")}))
    assert addresses(state) == ["10.244.1.8"]
    [problem] = state.problems
    assert problem.startswith("a.yaml:1: not YAML: ")
    state.take(Look({"a.yaml": service("cart")}))
    assert [key.name for key in state.snapshot.services] == ["cart"]
    assert state.problems == ()


def names(state: ManifestState) -> list[str]:
    return sorted(key.name for key in state.snapshot.services)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(service(clusterIP="10.96.7.x"), id="field"),
        pytest.param(service("Web_1"), id="name"),
        pytest.param("kind: [\n---\n", id="no-yaml"),
        pytest.param(service("web", selectr="{}"), id="unknown-field"),
    ],
)
def test_while_a_file_has_a_problem_none_of_its_objects_are_removed(state, broken):
    state.take(Look({"a.yaml": service(clusterIP="10.96.7.1") + service("cart") + service("db")}))
    for _ in range(2):
        state.take(Look({"a.yaml": broken + service("cart", type="NodePort")}))
        assert names(state) == ["cart", "db", "web"]
        assert state.snapshot.services[WEB].service.cluster_ips == ("10.96.7.1",)
        cart = state.snapshot.services[ServiceKey("shop", "cart")].service
        assert cart.ports[0].node_port
    state.take(Look({"a.yaml": service("cart")}))
    assert names(state) == ["cart"]


def test_an_object_kept_from_a_broken_file_yields_to_another_files_version(state):
    state.take(Look({"a.yaml": service(clusterIP="10.96.7.1")}))
    state.take(Look({"a.yaml": "kind: [", "b.yaml": service(clusterIP="10.96.7.2")}))
    assert state.snapshot.services[WEB].service.cluster_ips == ("10.96.7.2",)
    assert len(state.problems) == 1


def test_a_deleted_file_removes_its_objects_and_problems(state):
    state.take(Look({"a.yaml": service(), "b.yaml": "kind: ["}))
    state.take(Look(gone=frozenset({"a.yaml", "b.yaml"})))
    assert (state.snapshot.services, state.problems) == ({}, ())


def test_the_first_of_two_objects_with_the_same_name_is_used_and_the_second_is_reported(state):
    state.take(
        Look(
            {
                "b.yaml": service(clusterIP="10.96.7.2"),
                "a.yaml": service("cart") + service(clusterIP="10.96.7.1"),
            }
        )
    )
    assert state.problems == ("b.yaml:1: Service shop/web is already defined in a.yaml:6",)
    assert state.snapshot.services[WEB].service.cluster_ips == ("10.96.7.1",)
    state.take(Look(gone=frozenset({"a.yaml"})))
    assert state.problems == ()
    assert state.snapshot.services[WEB].service.cluster_ips == ("10.96.7.2",)


def test_endpoints_objects_are_used_only_without_slices(state):
    state.take(Look({"a.yaml": service() + endpoints("10.244.1.7")}))
    assert addresses(state) == ["10.244.1.7"]
    state.take(Look({"b.yaml": endpoint_slice("10.244.1.8")}))
    assert addresses(state) == ["10.244.1.8"]
    assert state.snapshot.services[WEB].service.notes == (
        NoteKind.LEFT_OUT_BESIDE("shop/web", "10.244.1.7"),
    )
    both = endpoint_slice("10.244.1.8") + endpoint_slice("10.244.1.7", "web-2")
    state.take(Look({"b.yaml": both}))
    assert state.snapshot.services[WEB].service.notes == (), "as in a dump of a cluster"


def test_a_service_without_slices_has_a_note_about_unmirrored_endpoints(state):
    skipped = endpoints("10.244.1.7").replace(
        "{name: web,", '{name: web, labels: {endpointslice.kubernetes.io/skip-mirror: "true"},'
    )
    state.take(Look({"a.yaml": service() + skipped}))
    assert (state.problems, addresses(state)) == ((), [])
    (note,) = state.snapshot.services[WEB].service.notes
    assert note.kind is NoteKind.NOT_TO_MIRROR
    state.take(Look({"b.yaml": endpoint_slice("10.244.1.8")}))
    assert state.snapshot.services[WEB].service.notes == ()
    assert addresses(state) == ["10.244.1.8"]


def test_the_node_object_with_this_nodes_name_is_used(state):
    nodes = "".join(
        f"{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}\n---\n"
        for name in ("bob", "alice")
    )
    state.take(Look({"a.yaml": nodes}))
    assert state.snapshot.node is not None
    assert state.snapshot.node.name == "alice"
    state.take(Look(gone=frozenset({"a.yaml"})))
    assert state.snapshot.node is None


def test_unsupported_kinds_are_reported_with_file_and_line(state):
    state.take(Look({"a.yaml": "{apiVersion: v1, kind: Pod}\n"}))
    assert state.ignored == ("a.yaml:1: kind v1 Pod is not supported",)


def test_dual_stack_addresses_and_node_ports_are_allocated_as_by_an_api_server():
    state = ManifestState(node_name="", service_cidrs=["10.96.0.0/16", "fd00:96::/112"])
    state.take(
        Look({"a.yaml": service(type="NodePort", ipFamilyPolicy="PreferDualStack") + service("b")})
    )
    web = state.snapshot.services[WEB].service
    assert web.cluster_ips == ("10.96.67.208", "fd00:96::734c")
    assert web.ports[0].node_port in range(30086, 32768)
    other = state.snapshot.services[ServiceKey("shop", "b")].service
    assert len(other.cluster_ips) == 1
    assert other.ports[0].node_port == 0


def test_another_services_health_check_port_is_reported_with_its_line(state):
    text = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=31000)
    state.take(Look({"a.yaml": text, "b.yaml": text.replace("web", "cart")}))
    note = NoteKind.NODE_PORT_NAMED("spec.healthCheckNodePort", "31000/TCP", "shop/web")
    (item,) = state.rejected
    assert (item.place, item.note, state.problems) == ("b.yaml:1", cause_of(note), (item.line,))
    cart = state.snapshot.services[ServiceKey("shop", "cart")].service
    assert (cart.health_check_node_port, cart.notes[-1]) == (0, note)


def test_allocation_depends_only_on_the_manifests_and_not_on_edit_order():
    def started() -> ManifestState:
        return ManifestState(node_name="", service_cidrs=["10.96.0.0/29"])

    files = {f"{name}.yaml": service(name, type="NodePort") for name in ("web", "cart", "db", "a")}
    at_once, edited = started(), started()
    at_once.take(Look(files))
    edited.take(Look({**files, "web.yaml": "kind: [", "other.yaml": service("other")}))
    edited.take(Look({"web.yaml": files["web.yaml"]}, gone=frozenset({"other.yaml"})))
    assert edited.snapshot.services == at_once.snapshot.services


def test_the_addresses_of_all_nodes_in_the_files_are_collected(state):
    nodes = "".join(
        f"{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, "
        f"status: {{addresses: [{{type: InternalIP, address: {ip}}}]}}}}\n---\n"
        for name, ip in (("bob", "192.0.2.2"), ("alice", "192.0.2.1"))
    )
    state.take(Look({"a.yaml": nodes}))
    assert state.snapshot.node_addresses == {"192.0.2.1", "192.0.2.2"}
    state.take(Look(gone=frozenset({"a.yaml"})))
    assert state.snapshot.node_addresses == frozenset()
