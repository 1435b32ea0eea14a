from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.causes.endpoints import owes_answers, refuses, silent
from userspace_proxy.causes.say import Form, say
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.facts import Level
from userspace_proxy.facts.last_minute import LastMinuteFacts
from userspace_proxy.model import DataPath, Taken
from userspace_proxy_kubectl.nodes.findings import NodeFinding
from userspace_proxy_kubectl.nodes.words import format_endpoint, format_finding, format_port

from ..status.views import replace
from .views import OTHER, POD, answer_of, answering, failing, merged_of, untried, web
from .words import WORDS, page


def test_the_texts_about_all_nodes_match_the_recorded_page():
    recorded = WORDS.read_text().splitlines()
    assert [*page()] == recorded, "if that is intended: python -m tests.unit.nodes.words"


def test_an_agents_text_is_truncated():
    cause = as_read(CauseCode(""), "x" * 10_000)
    assert len(format_finding(NodeFinding(Level.TROUBLE, cause), 0)) < 500


def test_endpoints_are_said_to_fail_alike_only_if_each_fails_wherever_it_was_tried():
    first, second = (failing(refuses(at)) for at in (POD, OTHER))
    all_fail, some = web(first, second), (web(first, answering(OTHER)), web(answering(), second))
    unlike = web(first, failing(silent(OTHER)))
    for ways, is_each in (((all_fail,) * 2, 1), (some, 0), ((unlike,) * 2, 0)):
        merged = merged_of(*map(answer_of, "ab", ways))
        words = f" 2 endpoints {say(refuses(POD), Form.SHORT_PREDICATE)}"
        assert format_port(merged.ports[0], merged).endswith(words) is bool(is_each)


def test_the_text_of_a_port_names_the_cause_of_its_neutral_mark():
    minute = LastMinuteFacts(connections=20, unanswered_requests=9, cause=owes_answers(POD))
    quiet = web(answering(OTHER), answering(POD), last_minute=minute)
    merged = merged_of(answer_of("a", web(answering(OTHER), answering(POD))), answer_of("b", quiet))
    (port,) = merged.ports
    assert port.mark is None
    ((why, _),) = port.neutral
    said = say(owes_answers(POD), Form.SHORT)
    assert format_port(port, merged) == f"served on 1 of 2; {why} on 1: {said} on b (1 of 2)"
    doubted, fine = map(format_endpoint, port.endpoints)
    assert doubted.startswith(f"{fine.replace(OTHER, POD)}, but ")


def test_the_text_of_a_port_names_the_chain_that_may_take_packets():
    doubt = Taken("chain ip x may drop packets to it", "look", "ip x", is_certain=False)
    for endpoint in (answering(POD), untried()):
        doubted = answer_of("b", web(endpoint, perhaps_taken=doubt))
        merged = merged_of(answer_of("a", web(answering(POD))), doubted)
        (port,) = merged.ports
        assert (port.mark, port.hint) == (None, doubt.hint)
        assert format_port(port, merged).endswith(f" on 1: {doubt.what} on b (1 of 2)")
        (incident,) = merged.incidents
        assert format_port(port, merged, incident.keys).endswith(" are answered on 1")
        assert [(row.node, row.mark) for row in merged.rows] == [("b", None), ("a", Level.OK)]


def test_an_endpoint_on_the_kernel_path_is_not_reported_as_untried():
    port = replace(web(untried()), path=PathView(DataPath.KERNEL))
    (one,) = merged_of(answer_of("a", port)).ports[0].endpoints
    assert (one.is_unseen, one.level) == (True, None)
    assert "kernel" in format_endpoint(one)
    unhealthy = replace(port, unanswered=silent(POD), silent_endpoints=1)
    (one,) = merged_of(answer_of("a", unhealthy)).ports[0].endpoints
    assert one.level is Level.ATTENTION
    assert "fails" in format_endpoint(one)


def test_the_number_of_endpoints_with_a_cause_is_stated_together_with_the_cause():
    sick = web(failing(refuses(POD)), failing(refuses(OTHER)), untried("10.244.2.7:8080"))
    seen = {"path": PathView(DataPath.KERNEL), "unanswered": silent(POD), "silent_endpoints": 2}
    kernel = replace(web(*map(untried, (POD, OTHER, "10.244.2.7:8080"))), **seen)
    for port, is_stated in ((sick, True), (kernel, True), (replace(sick, problem="in use"), False)):
        merged = merged_of(answer_of("a", port))
        assert (" 2 of 3 endpoints:" in format_port(merged.ports[0], merged)) is is_stated


def test_an_endpoints_failures_on_other_nodes_are_omitted_where_it_answers():
    minute = LastMinuteFacts(connections=20, refused=9, cause=refuses(POD))
    partly = web(answering(POD), answering(OTHER), last_minute=minute)
    none = web(failing(refuses(POD)), failing(refuses(OTHER)))
    merged = merged_of(answer_of("a", partly), answer_of("b", partly), answer_of("c", none))
    said = say(refuses(POD), Form.SHORT)
    assert format_port(merged.ports[0], merged).endswith(f"on a and b (2 of 3): {said}")
