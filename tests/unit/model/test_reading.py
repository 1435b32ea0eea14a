"""Tests of reading slices and nodes with missing, null, unknown or impossible fields."""

import pytest

from userspace_proxy.model import Endpoint, IPFamily, Node, SliceKey, SlicePort
from userspace_proxy.model.endpoint_names import NameSlice, read_host
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.reading import (
    HINTED_MAX,
    HINTED_OTHERS,
    LABEL_MANAGED_BY,
    read_node,
    read_slice,
    valid_addresses,
)
from userspace_proxy.model.syntax import check_label
from userspace_proxy.model.wire import FieldError, WireEndpointSlice, WireNode, convert

from ..refusals import why
from .samples import CART

LABEL = "kubernetes.io/service-name"


def a_slice(with_headless=False, with_pods=False, **fields):
    metadata = {"name": "cart-x7", "namespace": "shop", "labels": {LABEL: "cart"}}
    wire = {
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
        "ports": [{"name": "http", "port": 8080}],
        **fields,
    }
    wire = convert(wire, WireEndpointSlice)
    return read_slice(wire, with_headless=with_headless, with_pods=with_pods)


def the_endpoint(**fields):
    (endpoint,) = a_slice(endpoints=[{"addresses": ["192.0.2.1"], **fields}]).endpoints
    return endpoint


class TestSlice:
    def test_a_slice_belongs_to_the_service_in_its_label(self):
        item = a_slice()
        assert (item.key, item.service) == (SliceKey("shop", "cart-x7"), CART)
        assert item.family is IPFamily.IPV4
        assert item.ports == (SlicePort("http", 8080, "TCP"),)
        assert item.endpoints == (Endpoint("192.0.2.1"),)

    @pytest.mark.parametrize(
        ("conditions", "expected"),
        [
            (None, (True, True, False)),
            ({}, (True, True, False)),
            ({"ready": None, "serving": None, "terminating": None}, (True, True, False)),
            ({"ready": True}, (True, True, False)),
            ({"ready": False, "serving": False}, (False, False, False)),
            ({"ready": False, "terminating": True}, (False, True, True)),
            ({"ready": False, "serving": False, "terminating": True}, (False, False, True)),
        ],
    )
    def test_endpoint_conditions_are_read(self, conditions, expected):
        endpoint = the_endpoint(conditions=conditions)
        assert (endpoint.ready, endpoint.serving, endpoint.terminating) == expected

    def test_an_endpoint_may_have_a_node(self):
        assert the_endpoint(nodeName="node-1") == Endpoint("192.0.2.1", node="node-1")
        assert the_endpoint(nodeName=None) == Endpoint("192.0.2.1")

    @pytest.mark.parametrize(
        ("hints", "zones", "nodes"),
        [
            (None, (), ()),
            ({}, (), ()),
            ({"forZones": None, "forNodes": []}, (), ()),
            ({"forZones": [{"name": "a"}]}, ("a",), ()),
            (
                {"forZones": [{"name": "b"}, {"name": "a"}], "forNodes": [{"name": "node-1"}]},
                ("b", "a"),
                ("node-1",),
            ),
            ({"forZones": [{}], "forNodes": [{"name": None}, {"name": "node-1"}]}, (), ("node-1",)),
            ({"forPods": [{"name": "a"}]}, (), ()),
        ],
    )
    def test_topology_hints_name_zones_and_nodes(self, hints, zones, nodes):
        endpoint = the_endpoint(hints=hints)
        assert (endpoint.hinted_zones, endpoint.hinted_nodes) == (zones, nodes)

    @pytest.mark.parametrize("zones", [["a"], ["a", "b"]])
    def test_endpoints_with_equal_hints_share_one_object_in_memory(self, zones):
        hints = {"forZones": [{"name": zone} for zone in zones]}
        assert the_endpoint(hints=hints).hinted_zones is the_endpoint(hints=hints).hinted_zones

    def test_only_the_first_address_of_an_endpoint_is_used(self):
        assert the_endpoint(addresses=["192.0.2.1", "192.0.2.2"]).ip == "192.0.2.1"

    def test_a_slices_address_is_canonicalized(self):
        endpoints = [{"addresses": ["2001:DB8::0001"]}]
        item = a_slice(addressType="IPv6", endpoints=endpoints)
        assert item.family is IPFamily.IPV6
        assert item.endpoints == (Endpoint("2001:db8::1"),)

    @pytest.mark.parametrize("address", ["010.244.000.005", "::ffff:10.244.0.5"])
    def test_a_stored_slices_address_is_parsed_as_kube_proxy_parses_it(self, address):
        item = a_slice(endpoints=[{"addresses": [address]}])
        assert (item.endpoints, item.notes) == ((Endpoint("10.244.0.5"),), ())

    def test_valid_addresses_of_a_field_are_deduplicated(self):
        notes = []
        texts = ["2001:DB8::1", "2001:db8::1", None, "cart"]
        assert valid_addresses(texts, "spec.externalIPs", notes) == ("2001:db8::1",)
        assert valid_addresses(texts) == ("2001:db8::1",)
        problems = ["'' is not an IP address", "'cart' is not an IP address"]
        assert notes == [NoteKind.ADDRESS_WRONG("spec.externalIPs", one) for one in problems]

    @pytest.mark.parametrize(
        ("addresses", "problem"),
        [
            (None, "'' is not an IP address"),
            ([], "'' is not an IP address"),
            (["cart.example", "192.0.2.9"], "'cart.example' is not an IP address"),
            (["2001:db8::1"], "2001:db8::1 is not IPv4"),
        ],
    )
    def test_an_invalid_address_gets_a_note_and_drops_only_that_endpoint(self, addresses, problem):
        item = a_slice(endpoints=[{"addresses": addresses}, {"addresses": ["192.0.2.2"]}])
        assert item.endpoints == (Endpoint("192.0.2.2"),)
        assert item.notes == (NoteKind.ADDRESS_WRONG("endpoints[0].addresses", problem),)

    @pytest.mark.parametrize(
        "port",
        [
            pytest.param({"name": "any"}, id="all-ports"),
            pytest.param({"name": "zero", "port": 0}, id="zero"),
            pytest.param({"name": "high", "port": 65536}, id="too-high"),
            pytest.param({"name": "low", "port": -1}, id="negative"),
        ],
    )
    def test_a_port_without_a_valid_number_is_omitted(self, port):
        item = a_slice(ports=[port, {"port": 8080, "protocol": "UDP"}])
        assert item.ports == (SlicePort("", 8080, "UDP"),)
        assert item.unnumbered == (("any",) if port["name"] == "any" else ())

    @pytest.mark.parametrize("field", ["endpoints", "ports"])
    def test_lists_that_are_null_are_read_as_empty(self, field):
        assert getattr(a_slice(**{field: None}), field) == ()

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"metadata": {"name": "x"}}, id="no-labels"),
            pytest.param({"metadata": {"name": "x", "labels": {LABEL: None}}}, id="null-label"),
            pytest.param({"metadata": {"name": "x", "labels": {LABEL: ""}}}, id="empty-label"),
        ],
    )
    def test_a_slice_without_a_service_label_is_empty(self, fields):
        item = a_slice(**fields)
        assert item.service.name == ""
        assert (item.ports, item.endpoints) == ((), ())

    def test_an_fqdn_slice_is_read_as_a_name_slice(self):
        endpoints = [
            {"addresses": ["DB.example.com."], "conditions": {"ready": False}},
            {"addresses": ["192.0.2.1"]},
            {"addresses": []},
        ]
        item = a_slice(addressType="FQDN", endpoints=endpoints)
        assert isinstance(item, NameSlice)
        assert item.endpoints == ()
        assert item.named == (Endpoint("db.example.com", ready=False),)
        assert item.notes == (
            NoteKind.ADDRESS_WRONG("endpoints[1].addresses", why(read_host, "192.0.2.1")),
            NoteKind.ADDRESS_WRONG("endpoints[2].addresses", why(read_host, "")),
        )

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("1970-01-01T00:16:40Z", 1000.0, id="seconds"),
            pytest.param("1970-01-01T00:16:40.25Z", 1000.25, id="fraction"),
            pytest.param("1970-01-01T01:16:40+01:00", 1000.0, id="zone"),
            pytest.param("1970-01-01T00:16:40", 0.0, id="without-zone"),
            pytest.param("yesterday", 0.0, id="invalid"),
            pytest.param(None, 0.0, id="null"),
        ],
    )
    def test_the_trigger_time_is_read_from_an_annotation(self, text, expected):
        name = "endpoints.kubernetes.io/last-change-trigger-time"
        metadata = {"name": "cart-x7", "namespace": "shop", "labels": {LABEL: "cart"}}
        item = a_slice(metadata={**metadata, "annotations": {name: text}})
        assert item.triggered_at == expected
        assert item == a_slice(metadata=metadata)

    @pytest.mark.parametrize("manager", ["vm-sync", ""])
    def test_the_manager_of_a_slice_is_read_from_its_label(self, manager):
        labels = {LABEL: "web", LABEL_MANAGED_BY: manager or None}
        assert a_slice(metadata={"name": "x", "labels": labels}).manager == manager

    def test_slices_of_headless_services_are_empty_without_dns(self):
        labels = {LABEL: "web", "service.kubernetes.io/headless": ""}
        item = a_slice(metadata={"name": "x", "labels": labels})
        assert (item.is_headless, item.endpoints, item.ports) == (True, (), ())

    def test_slices_of_headless_services_are_read_for_dns(self):
        labels = {LABEL: "web", "service.kubernetes.io/headless": ""}
        item = a_slice(with_headless=True, metadata={"name": "x", "labels": labels})
        assert item.endpoints == (Endpoint("192.0.2.1"),)

    def test_an_endpoints_hostname_is_skipped_unless_dns_needs_it(self):
        named = [{"addresses": ["192.0.2.1"], "hostname": name} for name in ("web-0", None)]
        for with_headless, expected in ((True, ["web-0", ""]), (False, ["", ""])):
            item = a_slice(with_headless=with_headless, endpoints=named)
            assert [endpoint.hostname for endpoint in item.endpoints] == expected

    def test_the_number_of_hinted_names_in_a_slice_is_bounded(self):
        def hinted(number):
            zones = [{"name": f"zone-{number}"}, {"name": "zone-0"}]
            return {"addresses": ["192.0.2.1"], "hints": {"forZones": zones}}

        fit = a_slice(endpoints=[hinted(n) for n in range(HINTED_MAX)])
        assert fit.endpoints[-1].hinted_zones == (f"zone-{HINTED_MAX - 1}", "zone-0")
        assert fit.notes == ()
        more = a_slice(endpoints=[hinted(n) for n in (*range(HINTED_MAX + 1), 1)])
        assert more.endpoints[:-2] == fit.endpoints
        assert more.endpoints[-2].hinted_zones == HINTED_OTHERS
        assert more.endpoints[-1].hinted_zones == ("zone-1", "zone-0")
        assert more.notes == (NoteKind.TOO_MANY_HINTS(1_000),)

    def test_hinted_zones_and_nodes_of_a_slice_have_separate_limits(self):
        def hinted(number):
            hints = {"forZones": [{"name": f"zone-{number}"}], "forNodes": [{"name": f"n{number}"}]}
            return {"addresses": ["192.0.2.1"], "hints": hints}

        fit = a_slice(endpoints=[hinted(n) for n in range(HINTED_MAX)])
        assert fit.notes == ()
        assert fit.endpoints[-1].hinted_nodes == (f"n{HINTED_MAX - 1}",)
        more = a_slice(endpoints=[hinted(n) for n in range(2 * HINTED_MAX)])
        assert more.endpoints[:HINTED_MAX] == fit.endpoints
        assert {e.hinted_nodes for e in more.endpoints[HINTED_MAX:]} == {HINTED_OTHERS}

    @pytest.mark.parametrize(
        ("target", "pod"),
        [
            pytest.param({"kind": "Pod", "name": "web-7"}, "web-7", id="pod"),
            pytest.param({"kind": "Pod", "namespace": "shop", "name": "a.b"}, "a.b", id="dots"),
            pytest.param({"kind": "Node", "name": "../x"}, "", id="node"),
            pytest.param({"kind": "Pod"}, "", id="nameless"),
            pytest.param(None, "", id="null"),
        ],
    )
    def test_an_endpoints_pod_is_the_pod_in_its_target_reference(self, target, pod):
        endpoints = [{"addresses": ["192.0.2.1"], "targetRef": target}]
        for with_pods in (False, True):
            item = a_slice(with_pods=with_pods, endpoints=endpoints)
            assert (item.endpoints[0].pod, item.notes) == (pod, ())

    @pytest.mark.parametrize(
        ("target", "problem"),
        [
            pytest.param({"name": "../../x"}, "name: '../../x' is not", id="parents"),
            pytest.param({"name": "."}, "name: '.'", id="dot"),
            pytest.param({"name": "web/exec"}, "name: 'web/exec' is not", id="subresource"),
            pytest.param({"name": "web?command=sh"}, "name: 'web?command=sh' is not", id="query"),
            pytest.param({"name": "web#"}, "name: 'web#' is not", id="fragment"),
            pytest.param({"name": "web%2f"}, "name: 'web%2f' is not", id="escape"),
            pytest.param({"name": "a" * 254}, f"name: '{'a' * 100}'… is not", id="long"),
            pytest.param(
                {"name": "web-7", "namespace": "kube-system"},
                "namespace: 'kube-system' is not the namespace of the slice, shop",
                id="elsewhere",
            ),
        ],
    )
    def test_an_invalid_target_reference_is_dropped_with_a_note(self, target, problem):
        good = {"addresses": ["192.0.2.1"], "targetRef": {"kind": "Pod", "name": "web-7"}}
        bad = {"addresses": ["192.0.2.2"], "targetRef": {"kind": "Pod", **target}}
        item = a_slice(with_pods=True, endpoints=[good, bad])
        assert [endpoint.pod for endpoint in item.endpoints] == ["web-7", ""]
        (note,) = item.notes
        assert note == NoteKind.NO_POD(note.about, "192.0.2.2")
        assert note.about.startswith(f"endpoints[1].targetRef.{problem}")
        assert a_slice(endpoints=[good, bad]).notes == ()

    def test_target_references_in_an_invalid_namespace_are_dropped_with_a_note(self):
        metadata = {"name": "x", "namespace": "..", "labels": {LABEL: "cart"}}
        target = {"kind": "Pod", "name": "web-7"}
        endpoints = [{"addresses": ["192.0.2.1"], "targetRef": target}]
        item = a_slice(with_pods=True, metadata=metadata, endpoints=endpoints)
        assert item.endpoints[0].pod == ""
        assert item.notes[0].about == why(check_label, "..", "metadata.namespace")

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"addressType": None}, "addressType: is missing"),
            ({"addressType": "IPv5"}, "addressType: 'IPv5' is not IPv4, IPv6 or FQDN"),
            ({"metadata": {"labels": {LABEL: "cart"}}}, "metadata.name: is missing"),
        ],
    )
    def test_an_invalid_value_is_rejected_and_its_field_reported(self, fields, problem):
        with pytest.raises(FieldError) as caught:
            a_slice(**fields)
        assert str(caught.value) == problem


class TestNode:
    def test_a_nodes_addresses_zone_and_name_are_read(self):
        addresses = [
            {"type": "Hostname", "address": "node-1"},
            {"type": "InternalIP", "address": "192.0.2.01"},
            {"type": "ExternalIP", "address": "2001:DB8::1"},
            {"type": "InternalIP", "address": "nonsense"},
            {"type": "InternalIP"},
        ]
        wire = {
            "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "status": {"addresses": addresses},
        }
        node = read_node(convert(wire, WireNode))
        assert node == Node("node-1", ("192.0.2.1", "2001:db8::1"), "a")

    def test_a_nodes_pod_networks_are_canonicalized(self):
        spec = {"podCIDR": "10.244.1.0/24", "podCIDRs": ["010.244.1.0/24", "FD00:1::/64", "x"]}
        node = read_node(convert({"metadata": {"name": "node-1"}, "spec": spec}, WireNode))
        assert node.pod_networks == ("10.244.1.0/24", "fd00:1::/64")

    def test_a_deletion_timestamp_marks_a_node_as_being_deleted(self):
        metadata = {"name": "node-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}
        assert read_node(convert({"metadata": metadata}, WireNode)).is_being_deleted

    @pytest.mark.parametrize(
        ("taints", "expected"),
        [
            pytest.param(None, False, id="null"),
            pytest.param([{"key": None}, {"key": "node.kubernetes.io/x"}], False, id="others"),
            pytest.param(
                [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}], True, id="its"
            ),
        ],
    )
    def test_the_autoscaler_taint_marks_a_node_as_being_deleted(self, taints, expected):
        wire = {"metadata": {"name": "node-1"}, "spec": {"taints": taints}}
        assert read_node(convert(wire, WireNode)).is_being_deleted is expected

    def test_a_node_with_only_a_name_is_read(self):
        assert read_node(convert({"metadata": {"name": "node-1"}}, WireNode)) == Node("node-1")

    def test_a_node_without_a_name_is_rejected(self):
        with pytest.raises(FieldError, match=r"^metadata\.name: is missing$"):
            read_node(WireNode())


def test_weight_and_priority_apply_to_all_endpoints_of_the_slice():
    metadata = {
        "name": "cart-x7",
        "labels": {LABEL: "cart"},
        "annotations": {
            "userspace-proxy.io/weight": "5",
            "userspace-proxy.io/priority": "1",
            "userspace-proxy.io/wait": "1",
        },
    }
    item = a_slice(
        metadata=metadata, endpoints=[{"addresses": [ip]} for ip in ("192.0.2.1", "192.0.2.2")]
    )
    assert [(e.weight, e.priority) for e in item.endpoints] == [(5, 1)] * 2
    assert [(note.kind, note.about) for note in item.notes] == [
        (NoteKind.ANNOTATION_UNKNOWN, "userspace-proxy.io/wait")
    ]
