from userspace_proxy.causes.endpoints import refuses, silent
from userspace_proxy_kubectl.nodes.reached import nodes_of_failing, with_reached

from .views import POD, all_of, answer_of, answering, failing, untried, web


def test_the_remedy_depends_on_whether_the_endpoint_answers_on_its_own_node():
    for cause in (silent(POD), refuses(POD)):
        one = answer_of("node-1", web(failing(cause, node="node-2")), web(name="db"))
        assert nodes_of_failing([one], "shop/web") == ("node-2",)
        before = one.status.ports[0].state.hint
        for theirs, begin in ((untried(), before), (answering(), "Other nodes ")):
            found = with_reached(all_of(one), [answer_of("node-2", web(theirs))])
            port, _ = found.answers[0].status.ports
            assert port.state.hint.startswith(begin)
            assert (", or " in port.state.clauses[0].text) is (begin is before)
            assert port.state.causes[0].answers_nodes is port.endpoints[0].cause.answers_nodes


def test_no_other_node_is_asked_about_a_pod_of_the_same_node():
    ports = web(failing(silent(POD), node="node-1"), answering(node="node-3"))
    assert nodes_of_failing([answer_of("node-1", ports)], "shop/web") == ()
