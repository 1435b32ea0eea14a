import pytest

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.causes.names import name_not_allowed
from userspace_proxy.causes.nodes import no_node
from userspace_proxy.causes.notes import annotation_unknown
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.services import held_by
from userspace_proxy.causes.slices import no_slice_nor_selector, other_port_names
from userspace_proxy.check.inputs import judge_settings, look_at_manifests
from userspace_proxy.errors import ConfigError
from userspace_proxy.kernel.offers import LACKS_NOTHING
from userspace_proxy.model.annotations import DOMAIN
from userspace_proxy.model.reading import LABEL_SERVICE_NAME

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}, {name: more, port: 81}]}
"""


def look(path):
    return look_at_manifests(
        str(path),
        options=Options(node_name="a"),
        steering="local",
        service_cidrs=("10.96.0.0/12",),
        kernel=LACKS_NOTHING,
    )


def test_warnings_of_the_settings_are_reported_with_the_file():
    (found,) = judge_settings(["unknown field mods"], "/etc/kube-proxy.conf")
    assert str(found) == "warning  config: unknown field mods [/etc/kube-proxy.conf]"
    assert judge_settings([], "")[0].what == "flags are valid"


def test_settings_with_an_unusable_file_are_not_reported_as_valid():
    problem = ConfigError("cannot read --config=x", hint="check the path")
    found = judge_settings(["unknown flag"], "", problem)
    assert [str(f) for f in found] == [
        "error    config: cannot read --config=x -> check the path",
        "warning  config: unknown flag",
    ]


def test_the_number_of_service_ports_is_read_from_manifests(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(SERVICE.replace("{port: 80}", "{name: web, port: 80}"))
    findings, inputs = look(path)
    assert str(findings[0]) == f"ok       manifests: 1 Service read [{path}]"
    assert (inputs.service_ports, inputs.service_ips) == (2, ("10.96.0.10",))


@pytest.mark.parametrize("text", [SERVICE.replace("80", "0"), "kind: ["])
def test_unreadable_manifests_are_an_error_with_file_and_line(tmp_path, text):
    path = tmp_path / "web.yaml"
    path.write_text(text)
    findings, _ = look(path)
    assert findings[0].mark == "error"
    assert findings[0].what.startswith(f"{path}:")


def test_a_nonexistent_path_is_an_error(tmp_path):
    ((found,), inputs) = look(tmp_path / "nothing")
    assert found.what.startswith(f"cannot read manifests from {tmp_path}/nothing: No such file")
    assert inputs.service_ports is None


SLICE = f"""\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: shop, labels: {{{LABEL_SERVICE_NAME}: web}}}}
addressType: IPv4
endpoints: [{{addresses: [10.244.1.7]}}]
ports: [{{name: http, port: 8080}}]
"""
WEB = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}
"""


def findings_of(tmp_path, text):
    path = tmp_path / "web.yaml"
    path.write_text(text)
    return [str(f).replace(f"{path}", "web.yaml") for f in look(path)[0]]


def warning(what, cause, line=1):
    """Return the text of the warning about a cause."""
    hint = remedy(cause)
    found = f"warning  manifests: {what}: {say(cause)} [web.yaml:{line}]"
    return f"{found} -> {hint}" if hint else found


def test_a_service_with_endpoints_has_no_warnings(tmp_path):
    assert findings_of(tmp_path, WEB + SLICE) == ["ok       manifests: 1 Service read [web.yaml]"]


def test_endpoints_on_a_node_that_does_not_exist_are_a_warning(tmp_path):
    node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: a.example}\n"
    cause = no_node("a", ("a.example",))
    found = findings_of(tmp_path, WEB + SLICE + node)
    assert found[1:] == [f"warning  manifests: {say(cause)} [web.yaml] -> {remedy(cause)}"]


@pytest.mark.parametrize(
    ("text", "what", "cause"),
    [
        (
            SERVICE.replace("80}, {name: more, port: 81}", "80}"),
            "shop/web would refuse clients",
            no_slice_nor_selector("shop/web", "web"),
        ),
        (
            WEB + SLICE.replace("http", "web"),
            "shop/web:http would refuse clients",
            other_port_names("http", ("web",)),
        ),
        (
            WEB.replace("shop}", 'shop, annotations: {userspace-proxy.io/endpoints: "a.test:1"}}'),
            "shop/web:http would refuse clients",
            name_not_allowed("a.test"),
        ),
        (
            WEB.replace("shop}", "shop, annotations: {userspace-proxy.io/balanc: x}}") + SLICE,
            "Service shop/web",
            annotation_unknown(f"{DOMAIN}balanc", f"{DOMAIN}balance", ()),
        ),
    ],
)
def test_mistakes_that_cause_refusals_or_have_no_effect_are_warnings(tmp_path, text, what, cause):
    assert findings_of(tmp_path, text)[1:] == [warning(what, cause)]


def test_only_the_first_20_services_that_refuse_clients_are_named(tmp_path):
    text = "---\n".join(
        WEB.replace("web", f"web-{n}").replace("0.10", f"0.{n + 1}") for n in range(23)
    )
    found = findings_of(tmp_path, text)
    assert len(found) == 22
    assert found[-1] == "warning  manifests: 3 more Service ports would refuse clients"


def test_two_services_with_the_same_address_are_an_error_with_the_line(tmp_path):
    found = findings_of(tmp_path, WEB + SLICE + "---\n" + WEB.replace("web", "cart"))
    [problem] = [line for line in found if line.startswith("error")]
    cause = held_by("10.96.0.10:80/TCP", "shop/cart:http")
    what = "manifests: port http of Service shop/web would not be served"
    assert problem == f"error    {what}: {say(cause)} [web.yaml:1] -> {remedy(cause)}"


def test_the_subject_of_a_finding_is_the_port_or_the_whole_service(tmp_path):
    media = WEB.replace("web", "media").replace("port: 80", "port: 80, protocol: SCTP")
    found = findings_of(tmp_path, WEB.replace("10.96.0.10", "None") + "---\n" + media)[-1]
    assert "no listener by design for port http of Service shop/media (" in found
    assert ", Service shop/web (" in found


def test_a_duplicate_label_is_a_warning(tmp_path):
    twice = WEB.replace("name: web", "name: web, labels: {a: x, a: z}", 1)
    assert findings_of(tmp_path, twice)[1] == (
        "warning  manifests: web.yaml:3: metadata.labels: key 'a' is given twice, first in line 3: "
        "read as by kubectl"
    )


def test_all_problems_of_a_file_are_errors_and_the_other_objects_are_checked(tmp_path):
    text = WEB.replace("port: 80", "port: 0, protocl: UDP") + SLICE + "---\n"
    assert findings_of(tmp_path, text + WEB.replace("web", "cart"))[:3] == [
        "error    manifests: web.yaml:4: spec.ports[0].port: 0 is not in 1–65535",
        "error    manifests: web.yaml:4: spec.ports[0].protocl: unknown field (did you mean "
        "protocol?)",
        warning(
            "shop/cart:http would refuse clients", no_slice_nor_selector("shop/cart", "cart"), 13
        ),
    ]
