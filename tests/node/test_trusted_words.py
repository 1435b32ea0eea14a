"""For a broken Service, the result of ``explain`` states the cause, and no other.

The result is the last line, unless a next command follows it. The page and ``status`` show its end.
"""

import socket

import pytest

from tests.cluster.waiting import wait_for
from tests.node.broken_services import NAMESPACE
from tests.node.observers import EXPLAIN
from tests.node.testbed import Testbed
from tests.node.wrong_servers import RESET, SERVING, WrongServers
from tests.node.wrong_services import MISTAKES, ORIGINAL, dial, objects_of, service_ip

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node that serves nothing yet, two pods, and a link without hosts."""
    folder = tmp_path_factory.mktemp("agent")
    with Testbed(folder, "nftables", clients=("pod", "laptop")) as testbed:
        testbed.pod("pod").serve(tcp=SERVING)
        testbed.add_pods("other", tcp=[SERVING, 8080])
        servers = WrongServers(testbed)
        testbed.serve()
        yield testbed
        servers.close()


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: case.name)
def test_the_final_sentence_of_explain_states_the_cause(testbed, case):
    agent = testbed.agent
    places = {
        "pod": testbed.ip("pod"),
        "other": testbed.ip("other"),
        "original": service_ip(ORIGINAL),
    }
    agent.manifests.write_objects(objects_of(ORIGINAL, **places), name="a-original.yaml")
    wait_for("the other Service", lambda: agent.frontends("original"))
    agent.manifests.write_objects(objects_of(case, **places), name="case.yaml")

    def is_in_force():
        status = agent.status()
        names = {port["service"] for port in status["ports"]}
        return case.name in names and not status["sync"]["waiting_since"]

    wait_for("the Service", is_in_force, hint=agent.log)
    dial(testbed["pod"], case)
    asked = f"{NAMESPACE}/{case.name}"
    said = []

    def says():
        done = agent.run(command=[*EXPLAIN, asked])
        lines = (done.stdout or done.stderr).splitlines()
        said[:] = lines
        # The last line may be an additional command.
        result = [line for line in lines if line and not line.startswith("next: ")][-1]
        return case.says.format(**places) in result

    wait_for(f"“{case.says.format(**places)}”", says, deadline_s=20.0, hint=lambda: "\n".join(said))
    # A failure has the same code in the counter and in the sentence.
    for endpoint in (e for port in agent.status()["ports"] for e in port["endpoints"]):
        counted = endpoint["failures_by_cause"]
        assert not counted or [*counted] == [endpoint["cause"]["code"]], endpoint
    text = "\n".join(said)
    assert not [words for words in case.never if words.format(**places) in text], text
    assert case.hint in text, text


def serve_original(testbed):
    agent, objects = testbed.agent, objects_of(ORIGINAL, pod=testbed.ip("pod"))
    agent.manifests.write_objects(objects, name="a-original.yaml")
    wait_for("the Service", lambda: agent.frontends("original"))
    wait_for("the Service's rules", lambda: not agent.status()["sync"]["waiting_since"])
    return agent


@pytest.mark.parametrize("verdict", ["drop", "reject"])
def test_a_rule_added_while_a_connection_is_open_is_named(testbed, verdict):
    agent = serve_original(testbed)
    with testbed["pod"].dial((service_ip(ORIGINAL), 80)) as sock:
        wait_for("the endpoint's answer", lambda: agent.port("original")["active"] == 1)
        testbed.shell(
            "nft add chain ip hardening late '{ type filter hook output priority 1; }'; "
            f"nft add rule ip hardening late ip daddr {testbed.ip('pod')} {verdict}"
        )
        sock.sendall(b"GET / HTTP/1.1\r\nHost: original\r\n\r\n")

        def says():
            lines = agent.run(command=[*EXPLAIN, f"{NAMESPACE}/original"]).stdout.splitlines()
            return [line for line in lines if "chain ip hardening late" in line]

        wait_for("the chain", says, deadline_s=20.0, hint=lambda: str(agent.port("original")))
    testbed.shell("nft delete chain ip hardening late")
    wait_for("the end of the chain", lambda: not says(), deadline_s=20.0)


@pytest.mark.parametrize("ends", ["close", "reset"])
def test_clients_closing_without_a_request_are_not_counted_as_an_endpoint_failure(testbed, ends):
    agent, client, address = serve_original(testbed), testbed["pod"], (service_ip(ORIGINAL), 80)
    client.get(address)
    # Probes of load balancers, and browsers that preconnect, also dial without sending a byte.
    probes = [client.dial(address) for _ in range(20)]
    wait_for("the endpoint's answers", lambda: agent.port("original")["active"] == len(probes))
    for probe in probes:
        if ends == "reset":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        probe.close()
    wait_for("the end of all connections", lambda: not agent.port("original")["active"])
    port = agent.port("original")
    assert (port["state"]["word"], port["state"]["level"]) == ("served", "ok")
    assert (port["resets"], port["empty"], port["last_minute"]["unanswered"]) == (0, 0, 0)
