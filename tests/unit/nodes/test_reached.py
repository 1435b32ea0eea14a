from userspace_proxy.causes.endpoints import refuses, route_prohibits, silent
from userspace_proxy_kubectl.nodes.reached import depends_on_others, with_reached

from .views import POD, all_of, answer_of, answering, failing, untried, web


def test_the_remedy_depends_on_which_other_nodes_the_endpoint_answers():
    for cause in (silent(POD), refuses(POD)):
        one = answer_of("node-1", web(failing(cause, node="node-2")), web(name="db"))
        assert depends_on_others([one], "shop/web")
        before = one.status.ports[0].state.hint
        own = "Its own node " if cause.row is silent else "Other nodes "
        for of_own, of_third, begin in (
            (untried(), untried(), before),
            (answering(), untried(), own),
            (answering(), answering(), "Other nodes "),
        ):
            others = answer_of("node-2", web(of_own)), one, answer_of("node-3", web(of_third))
            found = with_reached(all_of(one), others)
            port, _ = found.answers[0].status.ports
            assert port.state.hint.startswith(begin)
            assert (", or " in port.state.clauses[0].text) is (begin is before)
            assert port.state.causes[0].answers_nodes is port.endpoints[0].cause.answers_nodes


def test_the_remedy_for_a_prohibited_route_does_not_depend_on_other_nodes():
    ports = web(failing(route_prohibits(POD)), answering())
    assert not depends_on_others([answer_of("node-1", ports)], "shop/web")
