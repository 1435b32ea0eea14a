"""Parsing the text of one manifest into objects, problems and findings."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from userspace_proxy.model import IPFamily, Node, Service, ServiceKey, ServicePort, SliceKey
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.syntax import check_address, check_family
from userspace_proxy.sources.manifests import objects
from userspace_proxy.sources.manifests.objects import (
    FileObjects,
    ManifestReader,
    MirroredEndpoints,
)

from ...refusals import why

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
spec:
  clusterIP: 10.96.7.1
  ports:
    - port: 80
"""
LABEL = "kubernetes.io/service-name"
SLICE = f"""\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels:
    {LABEL}: web
addressType: IPv4
endpoints:
  - addresses: [10.244.1.7]
ports:
  - port: 8080
"""
ENDPOINTS = """\
apiVersion: v1
kind: Endpoints
metadata: {name: cart}
subsets:
  - addresses: [{ip: 10.244.1.8}]
    ports: [{port: 8080}]
"""
NODE = """\
apiVersion: v1
kind: Node
metadata: {name: alice}
"""


def read(text: str) -> FileObjects:
    return ManifestReader("web.yaml").read(dedent(text))


def problem_of(text: str) -> str:
    content = read(text)
    assert content.objects == ()
    [problem] = content.problems
    return problem


def test_objects_of_each_kind_are_read_with_their_file_and_line():
    read_all = read("---\n".join((SERVICE, SLICE, ENDPOINTS, NODE)))
    assert read_all.problems == read_all.ignored == ()
    assert [(f.kind, f.key, f.place) for f in read_all.objects] == [
        ("Service", "shop/web", "web.yaml:1"),
        ("EndpointSlice", "default/web-1", "web.yaml:11"),
        ("Endpoints", "default/cart", "web.yaml:23"),
        ("Node", "alice", "web.yaml:30"),
    ]
    web, web_slice, cart, node = (found.value for found in read_all.objects)
    assert web.service == Service(
        ServiceKey("shop", "web"), (ServicePort("", 80, "TCP"),), cluster_ips=("10.96.7.1",)
    )
    assert (web_slice.key, web_slice.family) == (SliceKey("default", "web-1"), IPFamily.IPV4)
    assert isinstance(cart, MirroredEndpoints)
    assert cart.service == ServiceKey("default", "cart")
    assert node == Node("alice")


def test_objects_of_kind_list_are_read_as_their_items():
    text = """\
        apiVersion: v1
        kind: List
        items:
        - apiVersion: v1
          kind: ServiceList
          items:
          - metadata: {name: web}
            spec: {ports: [{port: 80}]}
        - {apiVersion: v1, kind: Node, metadata: {name: alice}}
        """
    assert [(f.kind, f.key, f.place) for f in read(text).objects] == [
        ("Service", "default/web", "web.yaml:7"),
        ("Node", "alice", "web.yaml:9"),
    ]


def test_an_empty_list_in_a_manifest_is_accepted():
    assert read("{apiVersion: v1, kind: List, items: []}") == FileObjects()
    assert read("{apiVersion: v1, kind: ServiceList, items: null}") == FileObjects()


def test_json_manifests_are_read_like_yaml():
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.7.1", "ports": [{"port": 80}]},
    }
    read_json = ManifestReader("web.yaml").read(json.dumps(service, indent="\t"))
    assert read_json == read(SERVICE)


def test_unsupported_kinds_are_ignored_and_each_kind_is_reported_once():
    text = """\
        {apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}
        ---
        {apiVersion: apps/v1, kind: Deployment, metadata: {name: cart}}
        ---
        {apiVersion: serving.knative.dev/v1, kind: Service}
        ---
        {apiVersion: v1, kind: ServiceAccount}
        """
    assert read(text) == FileObjects(
        ignored=(
            "web.yaml:1: kind apps/v1 Deployment is not supported",
            "web.yaml:5: kind serving.knative.dev/v1 Service is not supported",
            "web.yaml:7: kind v1 ServiceAccount is not supported",
        )
    )


def test_a_slice_without_a_service_is_accepted_with_a_finding():
    text = "---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, "
    text += "metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-nam: web}}}"
    found = read(text)
    assert [one.value.service for one in found.objects] == [ServiceKey("shop", "")]
    assert found.problems == ()
    assert found.ignored == (f"web.yaml:2: EndpointSlice shop/web-1 has no label {LABEL}",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SERVICE.replace("80", "70000"), "web.yaml:9: spec.ports[0].port: 70000 is not in 1–65535"),
        (SERVICE.replace("80", '"80"'), "web.yaml:9: spec.ports[0].port: expected int, got str"),
        (SERVICE.replace("name: web", "uid: web"), "web.yaml:3: metadata.name: is missing"),
        ("kind: Service\nspec: {a: [}\n", "web.yaml:2: not YAML: while parsing a flow"),
        ("kind: Service", "web.yaml:1: apiVersion: is missing"),
        ("apiVersion: v1\nmetadata: {name: web}", "web.yaml:1: kind: is missing"),
        (
            "- apiVersion: v1",
            "web.yaml:1: an object must be a mapping with apiVersion, kind and metadata",
        ),
        (
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice",
            "web.yaml:1: apiVersion: discovery.k8s.io/v1beta1 of EndpointSlice is not read: "
            "write discovery.k8s.io/v1",
        ),
        (
            "apiVersion: v1\nkind: Servce",
            "web.yaml:2: kind: there is no kind Servce of v1 (did you mean Service?)",
        ),
        (
            "apiVersion: discovry.k8s.io/v1\nkind: EndpointSlice",
            "web.yaml:1: apiVersion: there is no kind EndpointSlice of discovry.k8s.io/v1 "
            "(did you mean discovery.k8s.io/v1?)",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- a\n",
            "web.yaml:4: items[0]: an object must be a mapping",
        ),
        (
            "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: web}\n  spec:\n"
            "    ports:\n    - {port: 0}\n",
            "web.yaml:7: items[0].spec.ports[0].port: 0 is not in 1–65535",
        ),
        (
            SLICE.replace("10.244.1.7", "fd00::7"),
            f"web.yaml:9: {why(check_family, 'fd00::7', 'IPv4', 'endpoints[0].addresses[0]')}",
        ),
        (
            ENDPOINTS.replace("10.244.1.8", "10.244.1.300"),
            f"web.yaml:5: {why(check_address, '10.244.1.300', 'subsets[0].addresses[0].ip')}",
        ),
    ],
)
def test_a_problem_in_a_manifest_names_its_file_line_and_field_if_any(text, problem):
    assert problem_of(text).startswith(problem)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("apiVersion: v2\nname: web\nversion: 0.3.0\n", id="Chart.yaml"),
        pytest.param("resources:\n- web.yaml\n", id="kustomization.yaml"),
        pytest.param('{"name": "web", "private": true}', id="package.json"),
        pytest.param('replicas: 2\nimage: {tag: "1.2"}\n', id="values.yaml"),
        pytest.param("creation_rules:\n- pgp: x\n", id=".sops.yaml"),
        pytest.param("- hosts: all\n", id="a-list"),
    ],
)
def test_yaml_files_that_contain_no_kubernetes_object_are_not_a_problem(text):
    content = read(text)
    assert (content.problems, content.ignored) == ((), ("web.yaml:1: not a Kubernetes object",))


OTHERS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: numbers, labels: {app: a, app: b}}
data: {80: web, 443: web}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: shipper}
spec: {defaultMode: 0640, tag: !!binary aGk=}
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        pytest.param("web", "{{ .Release.Name }}", 4, id="helm"),
        pytest.param("apiVersion", "{% if a %}\napiVersion", 1, id="jinja"),
        pytest.param("80", "${PORT}", 9, id="envsubst"),
        pytest.param("80", "#@ values.port", 9, id="ytt"),
    ],
)
def test_an_unrendered_template_is_reported_as_a_template(old, new, line):
    (problem,) = read(SERVICE.replace(old, new)).problems
    assert problem.startswith(f"web.yaml:{line}: ")
    assert problem.endswith("(a template: read what `helm template` or `envsubst` makes of it)")


def test_a_placeholder_elsewhere_in_an_object_is_not_taken_for_a_template():
    text = SERVICE.replace("80", "http") + "  sessionAffinity: None # {{ of nothing }}\n"
    assert read(text).problems == ("web.yaml:9: spec.ports[0].port: expected int, got str",)


def test_objects_of_other_kinds_are_checked_only_for_their_kind():
    objects = ManifestReader("web.yaml").read(f"{SERVICE}---{OTHERS}")
    assert [found.identity for found in objects.objects] == [("Service", "shop/web")]
    assert objects.problems == ()
    assert len(objects.ignored) == 2


def test_concatenated_json_objects_are_all_read():
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {"ports": [{"port": 80}]},
    }
    text = json.dumps(service) + "\n" + json.dumps(service | {"metadata": {"name": "b"}}) + "\n{]"
    objects = ManifestReader("web.json").read(text)
    assert [found.key for found in objects.objects] == ["default/a", "default/b"]
    assert [found.line for found in objects.objects] == [1, 2]
    assert objects.problems[0].startswith("web.json:3: not YAML")


@pytest.mark.parametrize("rest", ["...\nkind: [\n", "...\n]\n", "# \x85\n---\na: [\n"])
def test_objects_before_broken_yaml_are_read(rest):
    objects = read(SERVICE + rest)
    assert [found.key for found in objects.objects] == ["shop/web"]
    assert len(objects.problems) == 1


def test_a_generated_name_is_the_same_in_each_read():
    text = SERVICE.replace("name: web", "generateName: web-")
    [first], [second] = read(text).objects, read(text).objects
    assert first.key == second.key
    assert first.key.startswith("shop/web-")


def with_metadata(written: str, template: str = SERVICE) -> str:
    return template.replace("name: web\n", f"name: web\n  {written}\n")


TWICE = "key 'a' is given twice, first in line {}: read as by kubectl"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (with_metadata("labels: {a: x, a: z}"), f"5: metadata.labels: {TWICE.format(5)}"),
        (
            with_metadata("annotations:\n    a: x\n    a: z"),
            f"7: metadata.annotations: {TWICE.format(6)}",
        ),
        (
            with_metadata("labels: {a: x}\n  labels: {b: x}"),
            "6: metadata: key 'labels' is given twice, first in line 5: read as by kubectl",
        ),
        (
            with_metadata("annotations: &n {a: x}\n  labels: {a: z, <<: *n}"),
            "6: metadata.labels: << replaces key 'a' of line 6 (write << before it): "
            "read as by kubectl",
        ),
        (
            with_metadata("labels: {80: x}"),
            "5: metadata.labels: key 80 is not text (quote it): read as by kubectl",
        ),
        (
            '{"kind": "Service", "apiVersion": "v1", "spec": {"ports": [{"port": 80}]},\n'
            '"metadata": {"name": "web", "labels": {"a": "x", "a": "z"}}}',
            f"2: metadata.labels: {TWICE.format(2)}",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n"
            "- {apiVersion: v1, kind: Node, metadata: {name: a, labels: {a: x, a: z}}}",
            f"4: items[0].metadata.labels: {TWICE.format(4)}",
        ),
    ],
)
def test_ambiguous_labels_and_annotations_are_accepted_with_a_finding(text, finding):
    found = read(text)
    assert (len(found.objects), found.problems) == (1, ())
    assert found.findings == (f"web.yaml:{finding}",)


def test_the_line_of_a_finding_is_updated_by_an_edit_above():
    reader = ManifestReader("web.yaml")
    text = "---\n" + with_metadata("labels: {a: x, a: z}")
    assert reader.read(text).findings == (f"web.yaml:6: metadata.labels: {TWICE.format(6)}",)
    assert reader.read(f"\n{text}").findings == (f"web.yaml:7: metadata.labels: {TWICE.format(7)}",)


@pytest.mark.parametrize(
    "written",
    ["namespace: a", "labels: {null: x}", "labels: {<<: 5}", "uid: {a: 1, a: 1}"],
)
def test_mistakes_in_metadata_other_than_duplicate_labels_are_problems(written):
    found = read(with_metadata(written))
    assert (found.objects, len(found.problems), found.findings) == ((), 1, ())


def test_a_list_item_with_a_mistake_does_not_affect_other_items():
    text = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {mode: 0640}}
- {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 012}]}}
kind: List
"""
    objects = ManifestReader("l.yaml").read(text)
    assert [found.key for found in objects.objects] == ["default/a"]
    assert objects.problems == (
        "l.yaml:7: items[2].spec.ports[0].port: 012 is 10 in YAML 1.1 and 12 in YAML 1.2 "
        "(quote it, or write 10 or 12)",
        "l.yaml:8: key 'kind' is given twice, first in line 3",
    )


def test_all_problems_are_reported_together_and_the_valid_objects_are_used():
    service = SERVICE.replace("port: 80", "port: 0\n      protocl: UDP").replace("  cl", "  cL")
    text = "---\n".join((service, SLICE, "kind: [\n", "kind: Node\nmetadata: {name: bob}\n", NODE))
    content = read(text)
    assert [found.identity for found in content.objects] == [
        ("EndpointSlice", "default/web-1"),
        ("Node", "alice"),
    ]
    assert content.problems == (
        "web.yaml:7: spec.cLusterIP: unknown field (did you mean clusterIP?)",
        "web.yaml:9: spec.ports[0].port: 0 is not in 1–65535",
        "web.yaml:10: spec.ports[0].protocl: unknown field (did you mean protocol?)",
        "web.yaml:24: not YAML: while parsing a flow node, did not find expected node content",
        "web.yaml:26: apiVersion: is missing",
    )


@pytest.mark.parametrize(
    ("text", "rejected"),
    [
        pytest.param(
            SERVICE.replace("port: 80", "port: 80000"),
            ("Service shop/web", ("shop/web",)),
            id="service",
        ),
        pytest.param(
            SLICE.replace("addressType", "adressType"),
            ("EndpointSlice default/web-1", ("default/web",)),
            id="slice",
        ),
        pytest.param(
            ENDPOINTS.replace("subsets", "subset"),
            ("Endpoints default/cart", ("default/cart",)),
            id="endpoints",
        ),
        pytest.param(NODE.replace("metadata", "spec: 7\nmetadata"), ("Node alice", ()), id="node"),
        pytest.param("kind: [", ("", ()), id="no-yaml"),
    ],
)
def test_a_problem_names_its_object_and_the_affected_service_if_known(text, rejected):
    first = read(text).rejected[0]
    assert (first.object, first.services) == rejected


def test_only_the_first_100_problems_of_a_file_are_listed():
    content = read("---\n".join(["kind: Node\n"] * 103))
    assert len(content.problems) == 101
    assert content.problems[-1] == "web.yaml:201: 3 more problems from here on"


def test_objects_of_an_edited_manifest_have_current_line_numbers():
    reader = ManifestReader("web.yaml")
    pod = "{apiVersion: v1, kind: Pod}\n"
    before = reader.read("---\n".join((SERVICE, SLICE, pod)))
    after = reader.read("---\n".join(("# one\n# more\n" + SERVICE, SLICE, pod, NODE)))
    assert [found.line for found in before.objects] == [1, 11]
    assert [found.line for found in after.objects] == [3, 13, 27]
    assert after.objects[1].value is before.objects[1].value
    assert after.objects[0].value is not before.objects[0].value
    assert before.ignored == ("web.yaml:23: kind v1 Pod is not supported",)
    assert after.ignored == ("web.yaml:25: kind v1 Pod is not supported",)


@pytest.mark.long
def test_aliases_of_all_documents_share_a_limit():
    many = "kind: &a [" + "1, " * 49_990 + "]\nb: *a\n"
    reader = ManifestReader("web.yaml")
    problem = "aliases expand to more than"
    for _ in range(2):
        [first, second, third] = reader.read("---\n".join([many, many + "c: 1\n", many])).problems
        assert (problem in first, problem in second, problem in third) == (False, False, True)


def test_endpoints_used_for_leader_election_are_not_mirrored_to_a_slice():
    lock = ENDPOINTS.replace(
        "{name: cart}", "{name: cart, annotations: {control-plane.alpha.kubernetes.io/leader: x}}"
    )
    (found,) = read(lock).objects
    assert found.value.slices == ()
    assert found.value.none_reason.kind is NoteKind.NOT_TO_MIRROR


def test_the_number_of_documents_in_a_file_is_limited(monkeypatch):
    monkeypatch.setattr(objects, "DOCUMENTS_MAX", 2)
    found = read(f"{SERVICE}---\n{SLICE}---\n---\n{NODE}---\n{NODE}")
    assert [one.kind for one in found.objects] == ["Service", "EndpointSlice"]
    line = len(f"{SERVICE}---\n{SLICE}---\n".splitlines()) + 1
    assert found.problems == (
        f"web.yaml:{line}: it has more than 100,000 documents (split the file)",
    )
