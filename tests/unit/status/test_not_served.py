import pytest

from userspace_proxy.facts import Level
from userspace_proxy.model import Cause, CauseCode, Handling, Hold
from userspace_proxy.status.not_served import besides, judge_not_served

from .views import make_frontend, make_port

HELD_BY = "node port 30080/TCP is held by nginx"
HELD = make_frontend("192.0.2.10:30080", "NodePort", "held by nginx", is_reached=False)
CLUSTER_IP = make_frontend("10.96.7.1:80", "ClusterIP", "proxy port 20001")
BALANCED = make_frontend("192.0.2.10:80", "LoadBalancer", "not steered", is_reached=False)
OTHER = make_frontend("192.0.2.11:80", "LoadBalancer", "not steered", is_reached=False)
NO_NAME = Cause(CauseCode.PORT_NAME_MISSING, 'they have no port named "http"; they have "web"')


@pytest.mark.parametrize(
    ("frontends", "word"), [((HELD,), "not served"), ((CLUSTER_IP, HELD), "partly served")]
)
def test_an_address_that_another_program_holds(frontends, word):
    problem = {"problem": f"{HELD_BY} (stop it)", "way_out": "stop it"}
    level, is_word, sentence, (cause,) = judge_not_served(make_port(frontends=frontends, **problem))
    assert (level, is_word, sentence) == (Level.TROUBLE, word, f"{word.capitalize()}: {HELD_BY}")
    assert (cause.sentence, cause.hint) == (HELD_BY, "stop it")


@pytest.mark.parametrize(
    ("missed", "where"),
    [
        pytest.param((HELD,), "node port 30080", id="node-port"),
        pytest.param((BALANCED,), "192.0.2.10:80", id="one-address"),
        pytest.param((BALANCED, OTHER), "192.0.2.10:80 and 1 more", id="two-addresses"),
    ],
)
def test_addresses_that_a_chain_takes_are_named_beside_it(missed, where):
    port = make_port(frontends=(CLUSTER_IP, *missed), problem="nftables chain evil drops packets")
    _, _, sentence, _ = judge_not_served(port)
    assert sentence == f"Partly served, not at {where}: nftables chain evil drops packets"


def test_what_is_wrong_besides_is_in_the_sentence():
    state = make_port(endpoints=(), problem=HELD_BY, cause=NO_NAME).state
    assert state.sentence == f"Not served: {HELD_BY}; besides, {NO_NAME}"
    assert [cause.sentence for cause in state.causes] == [HELD_BY, NO_NAME.sentence]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"problem": ""}, id="all-addresses-are-reached"),
        pytest.param({"cause": None}, id="an-endpoint-is-usable"),
        pytest.param({"handling": Handling(hold=Hold(60))}, id="clients-would-wait"),
        pytest.param({"is_dropping": True}, id="dropped-on-this-node-by-design"),
    ],
)
def test_what_is_by_design_is_not_wrong_besides(changes):
    assert not besides(make_port(**{"problem": HELD_BY, "cause": NO_NAME, **changes}))


def test_that_all_clients_would_be_dropped_is_wrong_besides():
    dropping = {"is_dropping": True, "admits": (), "cause": NO_NAME}
    assert besides(make_port(problem=HELD_BY, **dropping))


def test_the_cause_is_about_the_chain_that_takes_the_packets():
    port = make_port(problem="nftables chain ip evil pre drops packets")
    _, _, _, (cause,) = judge_not_served(port)
    assert cause.object == ""
    port.taken_by = "ip evil pre"
    _, _, _, (cause,) = judge_not_served(port)
    assert cause.object == "nftables chain ip evil pre"
