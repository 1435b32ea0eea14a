import json
import re

import pytest

from tests.unit.status.recorded import make_rich_view
from tests.unit.status.views import NOW
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.facts import RejectedFacts, SourceFacts, StatusFacts, SteeringState
from userspace_proxy.facts.encoding import encode_answer, read_answer
from userspace_proxy.secrets import Secrets
from userspace_proxy.status.answers import render_status
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.report.pseudonyms import Pseudonyms
from userspace_proxy_kubectl.nodes.report.scrubbing import Scrubber
from userspace_proxy_kubectl.port_forward import ForwardTarget

NAMES = ("shop", "orders", "payments", "node-a", "node-b", "voice", "10.244.", "203.0.113.")


@pytest.fixture
def scrubber():
    return Scrubber(Secrets(), Pseudonyms(b"key"))


@pytest.fixture
def rich():
    """Return the answer of a node with content in every part."""
    return read_answer(render_status(make_rich_view(), now=NOW))


def test_without_pseudonyms_a_response_stays_unchanged(rich):
    scrubber = Scrubber(Secrets())
    assert encode_answer(scrubber.value(rich)) == encode_answer(rich)


def test_all_names_and_addresses_are_hidden(scrubber, rich):
    before = encode_answer(rich).decode()
    assert all(name in before for name in NAMES[:2])
    scrubber.learn(rich)
    hidden = encode_answer(scrubber.value(rich)).decode()
    # A name may be part of another word: ``10.244.`` is also in ``110.244.``.
    assert re.findall(rf"(?<![\w.])(?:{'|'.join(map(re.escape, NAMES))})", hidden) == []


def test_states_protocols_and_families_are_kept(scrubber, rich):
    scrubber.learn(rich)
    hidden = scrubber.value(rich)
    states = [(one.state.level, one.state.word, one.protocol, one.family) for one in rich.ports]
    assert [
        (one.state.level, one.state.word, one.protocol, one.family) for one in hidden.ports
    ] == states
    assert hidden.totals == rich.totals
    assert read_answer(encode_answer(hidden)) == hidden


def test_the_programs_own_words_are_kept_even_if_an_object_has_such_a_name(scrubber):
    status = StatusFacts(steering=SteeringState("nftables"), version="0.1.0", node="nftables")
    scrubber.learn(status)
    hidden = scrubber.value(status)
    assert (hidden.steering.name, hidden.version) == ("nftables", "0.1.0")
    assert hidden.node.startswith("node-")


def test_a_cause_contains_the_pseudonym_of_its_endpoint(scrubber):
    cause = refuses("10.244.3.9:8080")
    hidden = scrubber.value(cause.replace(before=cause))
    assert f"{scrubber.pseudonyms.address('10.244.3.9')}:8080" in repr(hidden)
    assert (hidden.code, "10.244.3.9" in repr(hidden)) == (cause.code, False)


def test_the_names_of_objects_with_mistakes_are_hidden(scrubber):
    mistake = RejectedFacts("web.yaml:3: x", "Service shop/web", "Service", "shop", "web")
    status = StatusFacts(source=SourceFacts(rejected=[mistake]))
    scrubber.learn(status)
    (hidden,) = scrubber.value(status).source.rejected
    assert hidden.kind == "Service"
    assert hidden.object == f"Service {hidden.namespace}/{hidden.name}"
    assert "shop" not in repr(hidden)
    of_slice = refuses("10.244.3.9:8080").replace(within="EndpointSlice shop/web")
    assert "shop" not in scrubber.value(of_slice).within


def test_the_names_of_nodes_and_their_lagging_services_are_hidden(scrubber):
    answer = AgentAnswer(
        "alpha",
        agents=(ForwardTarget("kube-system", "userspace-proxy-x2x4z", 10249),),
        behind=("shop/web",),
    )
    all_nodes = AllNodes((answer,), digests={"shop/web": "0123abcd"})
    scrubber.learn(all_nodes)
    hidden = scrubber.value(all_nodes)
    (one,) = hidden.answers
    assert one.node.startswith("node-")
    assert (one.agents[0].namespace, one.agents[0].port) == ("kube-system", 10249)
    assert [*hidden.digests] == [*one.behind]
    assert not {"alpha", "shop", "web", "0123abcd"} & {*json.dumps(repr(hidden)).split("'")}


def test_secrets_are_removed_from_values():
    status = StatusFacts(source=SourceFacts(problems=["cannot log in: token=hunter22"]))
    hidden = Scrubber(Secrets()).value(status)
    assert hidden.source.problems == ["cannot log in: token=[removed]"]


def test_a_value_of_unknown_type_raises_type_error(scrubber):
    with pytest.raises(TypeError, match="a report can't contain a object"):
        scrubber.value([object()])
