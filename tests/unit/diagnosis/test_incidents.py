import pytest

from userspace_proxy.causes.cause import CauseCode, When
from userspace_proxy.causes.endpoints import (
    answers_late,
    dropped_here,
    no_datagram,
    no_host,
    no_route,
    node_silent,
    out_of_ports,
    refuses,
    resets,
    sends_nothing,
    silent,
    silent_to_some,
    unreachable,
)
from userspace_proxy.causes.names import name_unresolved
from userspace_proxy.causes.notes import slow_start_unused
from userspace_proxy.causes.say import kubectl_words
from userspace_proxy.causes.services import not_listening
from userspace_proxy.causes.slices import none_ready, none_ready_on, selects_no_pod
from userspace_proxy.diagnosis.incidents import Incidents
from userspace_proxy.diagnosis.judge import judge
from userspace_proxy.facts import FirewallFacts, LastMinuteFacts, Level, SourceFacts, Waits
from userspace_proxy.model import Taken

from ..status.views import make_endpoint, make_port, make_view
from .samples import failing

ONE_WAY = "10.244.7.1:514"
POD, OTHER = "10.244.0.9:8080", "10.244.0.8:8080"
WELL = make_endpoint("10.244.1.1:8080", answered_at=1.0)
FILES = SourceFacts("manifests", "m", is_synced=True)
EXPLAIN = "userspace-proxy explain %s --probe"


def port_with(name, *causes, **changes):
    """Return a Service port with a failing endpoint for each cause and one that serves."""
    endpoints = (*(failing(cause) for cause in causes), WELL)
    return make_port(name, endpoints=endpoints, **changes)


def on(node, cause, **facts):
    """Return an endpoint on a node that fails with this cause."""
    return failing(cause, node=node, **facts)


def taken_by(chain, name):
    """Return a Service port whose clients another program's chain intercepts."""
    port = make_port(name, problem=f"{name} is taken")
    port.taken_by = chain
    port.state = judge(port)
    return port


def causes_of_tls(at):
    return resets(at), sends_nothing(at), answers_late(at, 1.5)


def seen(cause, first_at=100.0, last_at=110.0, count=3):
    return cause.replace(first_at=first_at, last_at=last_at, count=count)


def test_causes_differing_only_in_additional_facts_are_one_incident():
    was_open = seen(refuses(POD, was_open=True), first_at=90.0, last_at=130.0)
    past = seen(refuses(POD), last_at=140.0).replace(when=When.PAST)
    causes = (past, was_open, seen(refuses(POD)), refuses(POD).replace(count=-5))
    ports = [port_with(name, cause) for name, cause in zip("abcd", causes, strict=True)]
    (one,) = Incidents(make_view(*ports)).all()
    assert one.cause == refuses(POD, was_open=True).replace(count=6, first_at=90.0, last_at=130.0)


def test_the_causes_of_one_endpoint_are_one_incident():
    ports = [port_with("a", seen(refuses(POD))), port_with("b", seen(silent(POD), last_at=120.0))]
    incidents = Incidents(make_view(*ports))
    (one,) = incidents.all(least=2)
    assert one.cause == seen(silent(POD), last_at=120.0)
    assert [*incidents.ids(ports[0]).values()] == [one.id]


def test_endpoints_of_a_service_failing_alike_are_one_incident():
    refused = port_with("a", refuses(POD), refuses(OTHER))
    tls = port_with("b", *causes_of_tls("10.244.7.1:80"), *causes_of_tls("10.244.7.2:80"))
    incidents = Incidents(make_view(refused, tls))
    assert {(*one.services, *one.endpoints) for one in incidents.all()} == {
        ("shop/a", POD, OTHER),
        ("shop/b", "10.244.7.1:80", "10.244.7.2:80"),
    }
    assert len({*incidents.ids(tls).values()}) == 1


@pytest.mark.parametrize(
    "ports",
    [
        pytest.param([port_with("a", refuses(POD), resets(OTHER))], id="in-different-ways"),
        pytest.param([port_with("a", silent(POD), silent(OTHER))], id="without-a-response"),
        [port_with("a", refuses(POD)), port_with("b", refuses(OTHER))],
        [port_with("a", refuses(POD), refuses(OTHER)), port_with("b", refuses(OTHER))],
    ],
)
def test_endpoints_not_known_to_fail_alike_are_separate_incidents(ports):
    assert [len(one.endpoints) for one in Incidents(make_view(*ports)).all()] == [1, 1]


def test_each_cause_shared_by_several_services_is_one_incident():
    rule = "a chain drops them"
    ports = [
        *(taken_by("ip nat KUBE", name) for name in ("a", "b")),
        *(port_with(name, dropped_here(at, rule)) for name, at in (("c", POD), ("d", OTHER))),
        *(make_port(name, cause=name_unresolved("db.example.com", name)) for name in ("e", "f")),
        *(make_port(name, is_out_of_ports=True) for name in ("g", "h")),
    ]
    found = Incidents(make_view(*ports)).all(least=2)
    assert sorted((one.cause.row.key, *one.services) for one in found) == [
        ("dropped_here", "shop/c", "shop/d"),
        ("name_unresolved", "shop/e", "shop/f"),
        ("not_listening", "shop/a", "shop/b"),
        ("out_of_ports", "shop/g", "shop/h"),
    ]
    chain = next(one for one in found if one.cause.row.key == "not_listening")
    assert (chain.level, chain.command) == (Level.TROUBLE, "nft list chain ip nat KUBE")
    dropped = next(one for one in found if one.cause.row.key == "dropped_here")
    assert dropped.affected == "2 endpoints of 2 Services"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"cause": selects_no_pod("shop/x", 1, "app=x", ("pods",))}, id="of-a-service"),
        pytest.param({"problem": "in use"}, id="without-a-chain"),
        pytest.param({"notes": (slow_start_unused(),)}, id="a-note"),
    ],
)
def test_a_cause_specific_to_a_service_is_a_separate_incident(changes):
    ports = [make_port(namespace=one, **changes) for one in ("shop", "bank")]
    found = Incidents(make_view(*ports)).all()
    assert sorted(one.services for one in found) == [["bank/web"], ["shop/web"]]
    assert not Incidents(make_view(*ports)).all(least=2)


def test_a_port_without_a_cause_is_not_an_incident():
    port = make_port(endpoints=(make_endpoint(POD, ejected_for_s=9.0),))
    assert port.state.level is not Level.OK
    assert not Incidents(make_view(port)).all()


def test_a_chain_that_may_take_packets_of_several_services_is_a_neutral_incident():
    doubt = Taken("x drops some packets", "look", "ip x in", is_certain=False)
    ports = [make_port(name, perhaps_taken=doubt) for name in ("cart", "web")]
    view = make_view(*ports, make_port("fine"))
    (one,) = Incidents(view).all(least=2)
    assert (one.mark, one.services) == (None, ["shop/cart", "shop/web"])
    assert one.command == "nft list chain ip x in"
    view.firewalls = [FirewallFacts("ip x in")]
    assert Incidents(view).all() == (), "a known chain is an incident again"


def test_an_incident_contains_its_failed_clients():
    met = {"refused": 5, "saved": 2, "waits": Waits(waiting=3)}
    last = LastMinuteFacts(9, refused=1, unanswered=2, client_aborts=3, endpoint_aborts=4, queued=5)
    ports = [port_with(name, refuses(POD), last_minute=last, **met) for name in ("a", "b")]
    (one,) = Incidents(make_view(*ports)).all()
    assert (one.waiting, one.last_minute, one.failed, one.saved) == (6, 30, 10, 4)


def test_incidents_are_sorted_by_severity_and_size():
    dead = make_port("dead", endpoints=(failing(seen(refuses(OTHER))),))
    ports = [*(port_with(name, refuses(POD)) for name in ("a", "b")), dead]
    found = Incidents(make_view(*ports)).all()
    assert [one.endpoints for one in found] == [(OTHER,), (POD,)]


def test_failing_endpoints_of_a_lost_node_are_one_incident():
    a = make_port("a", endpoints=(on("node-7", seen(silent("10.244.7.1:80"))), WELL))
    b = make_port("b", endpoints=(on("node-7", seen(unreachable("10.244.7.2:80"), 90.0)), WELL))
    c = make_port("c", endpoints=(on("node-7", seen(no_host("10.244.7.2:80"))), WELL))
    incidents = Incidents(make_view(a, b, c))
    (one,) = incidents.all()
    assert one.cause == seen(node_silent("node-7"), 90.0, count=9)
    assert one.affected == "2 endpoints of 3 Services"
    assert one.command == "kubectl describe node node-7"
    assert set(incidents.ids(a).values()) == {one.id}
    assert incidents.at([a]) == (one,)


UNREADY = {"code": CauseCode.NOT_READY, "state": "not ready", "is_usable": False}


def unready(name, *endpoints):
    """Return a Service port whose only endpoint, on node-7, isn't ready."""
    past = silent(f"10.244.7.{ord(name)}:80").replace(when=When.PAST)
    cause = none_ready(1, 0, ("pods",), "node-7")
    return make_port(name, cause=cause, endpoints=(on("node-7", past, **UNREADY), *endpoints))


def test_services_with_all_endpoints_on_an_unready_node_are_one_incident():
    served = make_port("c", endpoints=(on("node-7", silent(POD), **UNREADY), WELL))
    incidents = Incidents(make_view(unready("a"), unready("b"), served))
    one = next(one for one in incidents.all() if one.cause == none_ready_on("node-7"))
    assert one.affected == "2 Services"
    assert one.command == "kubectl describe node node-7"
    alive = make_port(endpoints=(make_endpoint(OTHER, node="node-7"),))
    alone = unready("a", *unready("b").endpoints)
    for ports in ([unready("a")], [alone], [unready("a"), unready("b"), alive]):
        causes = [one.cause for one in Incidents(make_view(*ports)).all()]
        assert none_ready_on("node-7") not in causes


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param([], id="one-host"),
        pytest.param([on("node-7", silent("10.244.7.1:81"))], id="two-ports-of-one-host"),
        pytest.param([on("node-8", silent("10.244.8.1:80"))], id="another-node"),
        [on("", silent("10.244.8.1:80")), on("", silent("10.244.8.2:80"))],
        [on("node-7", silent("10.244.7.2:80").replace(when=When.PAST))],
        pytest.param([on("node-7", silent_to_some("10.244.7.2:80"))], id="answers-others"),
        pytest.param(
            [
                on("node-7", seen(silent("10.244.7.2:80"))),
                make_endpoint("10.244.7.3:80", node="node-7", answered_at=101.0),
            ],
            id="a-third-endpoint-has-answered",
        ),
        [on("node-7", seen(silent("10.244.7.2:80"))), on("node-7", seen(refuses("10.244.7.3:80")))],
    ],
)
def test_a_node_is_not_reported_as_lost_without_sufficient_evidence(beside):
    port = make_port(endpoints=(on("node-7", seen(silent("10.244.7.1:80"))), *beside, WELL))
    assert "node_silent" not in [one.cause.row.key for one in Incidents(make_view(port)).all()]


def test_previously_answering_or_untried_endpoints_do_not_prove_a_node_alive():
    gone = [on("node-7", seen(silent(f"10.244.7.{number}:80"))) for number in (1, 2)]
    others = [
        make_endpoint("10.244.7.3:80", node="node-7", answered_at=99.0),
        make_endpoint("10.244.7.4:80", node="node-7"),
        make_endpoint("10.244.8.1:80", node="node-8", answered_at=200.0),
    ]
    (one,) = Incidents(make_view(make_port(endpoints=(*gone, *others)))).all()
    assert one.cause.row.key == "node_silent"


def test_all_failing_ports_of_an_ip_are_one_incident():
    a = port_with("a", seen(silent("10.244.7.1:80"), first_at=90.0))
    b = port_with("b", seen(unreachable("10.244.7.1:80")), seen(silent("10.244.7.1:81")))
    c = port_with("c", seen(no_host("10.244.7.1:82", "cni0"), last_at=120.0))
    d = port_with("d", seen(no_host("10.244.7.1:83", "cni0")))
    syslog = make_port("syslog", protocol="UDP", endpoints=(failing(no_datagram(ONE_WAY)),))
    used = make_port("used", protocol="UDP", endpoints=(make_endpoint(ONE_WAY, answered_at=200.0),))
    incidents = Incidents(make_view(a, b, c, d, syslog, used))
    (one,) = incidents.all(least=2)
    at = "10.244.7.1:80,81,82,…"
    assert one.cause == seen(no_host(at, "cni0"), 90.0, 120.0, count=15)
    assert one.affected == "4 endpoints of 4 Services"
    assert one.command == f"kubectl {kubectl_words(one.cause, 'shop/a')}"
    assert set(incidents.ids(b).values()) == {one.id}


def test_an_ip_without_a_route_is_one_incident_and_no_lost_node():
    ports = [
        make_port(f"{ip}-{n}", endpoints=(on("node-7", seen(no_route(f"{ip}:{n}"))), WELL))
        for ip in ("10.244.7.1", "10.244.7.2")
        for n in (80, 81)
    ]
    found = Incidents(make_view(*ports)).all(least=2)
    assert {one.cause.get("at") for one in found} == {"10.244.7.1:80,81", "10.244.7.2:80,81"}


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param(silent("10.244.7.1:80"), id="one-endpoint"),
        pytest.param(silent("10.244.7.2:81"), id="another-ip"),
        pytest.param(refuses("10.244.7.1:81"), id="a-refusal"),
        pytest.param(silent("10.244.7.1:81").replace(when=When.PAST), id="a-while-ago"),
        pytest.param(None, id="another-port-has-answered-since"),
    ],
)
def test_an_ip_is_not_blamed_without_sufficient_evidence(beside):
    causes = [silent("10.244.7.1:80"), beside or silent("10.244.7.1:81")]
    ports = [port_with(str(number), seen(cause)) for number, cause in enumerate(causes)]
    answers = make_endpoint("10.244.7.1:82", answered_at=101.0 if beside is None else 0.0)
    found = Incidents(make_view(*ports, make_port("c", endpoints=(answers,)))).all()
    assert {at for one in found for at in (one.cause.get("at"),)} == {c.get("at") for c in causes}


def test_incidents_of_selected_ports_include_all_affected_services():
    ports = [port_with("web", refuses(POD), namespace=one) for one in ("shop", "bank", "mail")]
    calm, incidents = make_port("calm"), Incidents(make_view(*ports, make_port("calm")))
    assert incidents.at([calm, ports[0]]) == incidents.all()
    assert incidents.at(ports[:2], least=2) == incidents.all()
    assert not incidents.at(ports[:1], least=2)
    assert incidents.at([*ports, calm], least=2) == incidents.all()


def test_an_incident_has_the_same_id_with_a_higher_count_and_more_services():
    (before,) = Incidents(make_view(port_with("a", seen(refuses(POD))))).all()
    later = make_view(port_with("a", seen(refuses(POD), count=9)), port_with("b", refuses(POD)))
    incidents = Incidents(later)
    assert incidents.find(before.id) == incidents.all()[0]
    assert before.id.isalnum()
    assert incidents.find("gone") is None


def test_the_service_ports_of_an_incident_are_sorted_by_severity():
    alone = make_port("z", endpoints=(failing(refuses(POD)),))
    ports = [port_with("b", refuses(POD)), port_with("a", refuses(POD)), alone]
    incidents = Incidents(make_view(*ports, make_port("calm")))
    (one,) = incidents.all()
    assert [port.service for port in incidents.ports(one)] == ["z", "a", "b"]


def test_the_causes_of_a_service_port_link_to_their_incidents():
    port = port_with("a", refuses(POD), silent(OTHER))
    incidents = Incidents(make_view(port))
    ids = {one.cause.fact: one.id for one in incidents.all()}
    assert incidents.ids(port) == ids
    assert incidents.ids(make_port("calm")) == {}


@pytest.mark.parametrize(
    ("port", "source", "command"),
    [
        (port_with("a", refuses(POD)), FILES, EXPLAIN % "shop/a"),
        (port_with("a", refuses(POD).replace(host="db.example.com")), None, EXPLAIN % "shop/a"),
        (make_port("a", problem="in use"), None, "ss -Hlntup"),
        (make_port("a", is_out_of_ports=True), FILES, "userspace-proxy explain shop/a"),
        (port_with("$(a)", refuses(POD)), FILES, EXPLAIN % "'shop/$(a)'"),
    ],
)
def test_an_incident_has_a_command_that_shows_details(port, source, command):
    view = make_view(port) if source is None else make_view(port, source=source)
    assert [one.command for one in Incidents(view).all()] == [command]


def test_only_causes_that_services_can_share_have_a_shared_identity():
    assert out_of_ports().shared == (out_of_ports().code,)
    assert not_listening("in use", "").shared is None
    assert refuses(POD).shared == refuses(POD, was_open=True).shared
