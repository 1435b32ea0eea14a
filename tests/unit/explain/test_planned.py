from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.say import say
from userspace_proxy.causes.slices import none_allowed, none_local
from userspace_proxy.explain import explain, read_subject
from userspace_proxy.explain.planned import plan_status
from userspace_proxy.facts import PortState
from userspace_proxy.model.reading import LABEL_SERVICE_NAME
from userspace_proxy.policy import PolicyOptions
from userspace_proxy.sources.manifests import load_state

SHOP = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: NodePort, clusterIP: 10.96.0.10, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {LABEL: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [127.0.0.1]}, {addresses: [10.244.0.3], conditions: {ready: false}}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: [{port: 80}]}
"""


LOCAL = """\
apiVersion: v1
kind: Service
metadata: {name: far, namespace: shop}
spec:
  type: NodePort
  clusterIP: 10.96.0.12
  externalTrafficPolicy: Local
  ports: [{port: 80, nodePort: 30081}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: far-1, namespace: shop, labels: {LABEL: far}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.3], nodeName: bob}]
---
"""


def plan_manifest(tmp_path, steering="auto", node="ann"):
    path = tmp_path / "shop.yaml"
    path.write_text((LOCAL + SHOP).replace("LABEL", LABEL_SERVICE_NAME))
    state = load_state(path)
    assert state.problems == ()
    return plan_status(state.snapshot, PolicyOptions(node), now=1.0, steering=steering)


def explain_manifest(tmp_path, service, steering="auto"):
    status = plan_manifest(tmp_path, steering)
    return explain(read_subject(status, service, "shop.yaml", is_live=False))


def test_explain_rejects_loopback_endpoints_as_a_node_does(tmp_path):
    port = plan_manifest(tmp_path).only("shop/web").ports[0]
    assert (port.state.word, port.cause.row) == (PortState.REFUSED, none_allowed)


def test_clients_dropped_by_a_node_are_mentioned_in_the_sentence(tmp_path):
    _, outside = plan_manifest(tmp_path).only("shop/far").ports
    assert (outside.state.word, outside.cause.row) == (PortState.DROPPED, none_local)
    assert explain_manifest(tmp_path, "shop/far").sentence.endswith(say(outside.cause))


def test_a_plan_for_no_node_counts_endpoints_as_on_their_nodes(tmp_path):
    _, outside = plan_manifest(tmp_path, node="").only("shop/far").ports
    assert (outside.state.word, outside.serving) == (PortState.SERVED, 1)
    assert outside.policy.startswith("from outside: on each node only its own endpoints")


def test_a_served_port_of_a_plan_has_the_code_of_its_note(tmp_path):
    file = tmp_path / "shop.yaml"
    misspelt = "{name: web, namespace: shop, annotations: {userspace-proxy.io/hodl: 1s}}"
    text = SHOP.replace("LABEL", LABEL_SERVICE_NAME)
    file.write_text(text.replace("{name: web, namespace: shop}", misspelt))
    snapshot = load_state(file).snapshot
    status = plan_status(snapshot, PolicyOptions(), now=1.0, steering="none")
    (port,) = status.only("shop/web").ports
    assert (port.state.word, port.state.code) == ("served", CauseCode.NOT_FOLLOWED)
