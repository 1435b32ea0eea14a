"""Tests of which endpoints a node's acknowledgements cordon, and for how long."""

import json

import pytest

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.model import Handling, Hold, ServiceKey
from userspace_proxy.scaling.cordons import CORDON_S, ENDS_S
from userspace_proxy.scaling.lease_notes import Vote
from userspace_proxy.state_file import StateBytes

from .resting_nodes import ASLEEP_WHEN_IDLE, POD, WEB, WORKLOAD, Node, World

OTHER_POD = "192.0.2.2"
API = ServiceKey("shop", "api")
WEB_WORKLOAD = ("shop", WORKLOAD)
ASLEEP = Vote("7", (WEB,), is_over=True)
AWAKE = Vote("7", (), is_over=True)


@pytest.fixture
async def node(make):
    """A node that has acknowledged a vote: its Service's pod gets no clients."""
    (node,) = World(make, "node-1").nodes
    node.cordons.cordon(WEB, "7", node.world.now + CORDON_S)
    return node


def pass_time(node, seconds):
    node.world.now += seconds
    node.cordons.release_late()


class File:
    """The file in which a process stores acknowledgements for the next process."""

    def __init__(self, data=b"", written_at=0.0):
        self.content = StateBytes(data, written_at) if data else None

    def read(self):
        return self.content

    def write(self, data, *, current_at):
        self.content = StateBytes(data, current_at)


async def restart(node, make, file):
    again = Node("node-1", node.world, make, 27900, file)
    answer = await again.cordons.restore()
    again.serve(POD)
    return again, answer


@pytest.fixture
async def kept(node):
    """The file in which the node has stored its acknowledgement."""
    file = node.cordons._file = File()
    await node.cordons.keep("7")
    return file


async def test_the_next_process_keeps_an_acknowledgement_until_it_expires(node, kept, make):
    node.world.now += CORDON_S - 1
    again = Node("node-1", node.world, make, 27900, kept)
    assert await again.cordons.restore() == ("7", {WEB})
    again.cordons.release_late()
    again.serve(POD, OTHER_POD)
    assert again.endpoints == [OTHER_POD]
    pass_time(again, 1)
    assert sorted(again.endpoints) == [POD, OTHER_POD]


async def test_a_service_that_appears_after_its_cordon_has_its_endpoints(node, kept, make):
    again = Node("node-1", node.world, make, 27900, kept)
    await again.cordons.restore()
    pass_time(again, CORDON_S)
    again.serve(POD)
    assert again.endpoints == [POD]


async def test_the_next_process_ignores_an_expired_acknowledgement(node, kept, make):
    node.world.now += CORDON_S
    again, answer = await restart(node, make, kept)
    assert answer == ("", frozenset())
    assert again.endpoints == [POD]


async def test_a_failed_deletion_of_an_expired_acknowledgement_is_logged_once(node, kept, caplog):
    def write(_data, *, current_at):
        raise UserspaceProxyError("cannot write cordons.json: disk full")

    kept.write = write
    node.cordons.end(AWAKE)
    for _ in range(2):
        await node.cordons.forget_ended()
    (record,) = caplog.records
    assert "a restart restores them: cannot write cordons.json" in record.getMessage()
    node.cordons.cordon(WEB, "8", node.world.now + CORDON_S)
    with pytest.raises(UserspaceProxyError):
        await node.cordons.keep("8")
    assert node.endpoints == [POD]


@pytest.fixture
async def two_rounds(node, kept):
    """The file after a second vote, 5 s later, about another Service."""
    node.serve(OTHER_POD, name="api", ip="10.96.0.2", handling=ASLEEP_WHEN_IDLE)
    node.cordons.end(ASLEEP)
    await node.cordons.forget_ended()
    node.world.now += 5
    node.cordons.cordon(API, "8", node.world.now + CORDON_S)
    await node.cordons.keep("8")
    return kept


def ends_of(node, key):
    (served,) = node.served_ports.of_service(key)
    return [endpoint.ip for endpoint in served.group.serving.endpoints]


async def restart_with_both(node, make, file):
    again, answer = await restart(node, make, file)
    again.serve(OTHER_POD, name="api", ip="10.96.0.2", handling=ASLEEP_WHEN_IDLE)
    return again, answer


async def test_the_next_process_restores_cordons_of_earlier_rounds(node, two_rounds, make):
    again, answer = await restart_with_both(node, make, two_rounds)
    assert answer == ("8", {API}), "the answer is the last round's"
    assert (again.endpoints, ends_of(again, API)) == ([], [])
    again.cordons.end(Vote("8", (), is_over=True))
    assert (again.endpoints, ends_of(again, API)) == ([], [OTHER_POD])


async def test_after_an_earlier_round_ends_the_last_acknowledgement_is_restored(
    node, two_rounds, make
):
    node.serve()
    pass_time(node, 5)
    await node.cordons.forget_ended()
    again, answer = await restart_with_both(node, make, two_rounds)
    assert answer == ("8", {API})
    assert (again.endpoints, ends_of(again, API)) == ([POD], [])
    pass_time(again, CORDON_S - 5)
    assert ends_of(again, API) == [OTHER_POD]


async def test_another_services_round_ends_no_earlier_acknowledgement(node, two_rounds, make):
    pay = ServiceKey("shop", "pay")
    node.cordons.cordon(pay, "9", node.world.now + CORDON_S)
    await node.cordons.keep("9")
    again, answer = await restart_with_both(node, make, two_rounds)
    assert (answer, ends_of(again, API)) == (("9", {pay}), [])
    node.cordons.end(Vote("9", (pay,), is_over=True))
    assert ends_of(node, API) == []


async def test_a_later_round_does_not_prolong_an_earlier_acknowledgement(node, two_rounds, make):
    again, _ = await restart_with_both(node, make, two_rounds)
    pass_time(again, CORDON_S - 5)
    assert (again.endpoints, ends_of(again, API)) == ([POD], [])


async def test_an_earlier_versions_file_is_readable_and_new_files_keep_its_format(
    node, two_rounds, make
):
    written = json.loads(two_rounds.content.data)
    assert (written["round"], written["endpoints"]) == ("8", {"shop/api": [[OTHER_POD, 8080]]})
    earlier = b'{"round": "7", "endpoints": {"shop/web": [["192.0.2.1", 8080]]}}'
    again, answer = await restart(node, make, File(earlier, node.world.now))
    assert answer == ("7", {WEB})
    assert again.endpoints == []


async def test_a_file_dated_in_the_future_does_not_prolong_an_acknowledgement(node, kept, make):
    kept.content = kept.content._replace(current_at=node.world.now + 3600)
    again, _ = await restart(node, make, kept)
    assert again.endpoints == []
    pass_time(again, CORDON_S)
    assert again.endpoints == [POD]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"round": "7", "endpoints": [7]}',
        b'{"round": "7", "endpoints": {}, "earlier": {"shop/web": 7}}',
    ],
)
async def test_no_acknowledgement_is_restored_from_an_unreadable_file(node, make, data):
    again, answer = await restart(node, make, File(data, node.world.now))
    assert answer == ("", frozenset())
    assert again.endpoints == [POD]


async def test_only_acknowledgements_of_the_current_round_are_stored(node, make):
    file = node.cordons._file = File()
    await node.cordons.keep("8")
    assert file.content is None


async def test_clients_are_served_again_if_the_lease_has_no_round(node):
    assert node.cordons.end(None) == []
    assert node.endpoints == [POD]


async def test_pods_of_a_workload_scaled_to_zero_get_no_clients_until_removed(node):
    assert node.cordons.end(ASLEEP) == [WEB]
    pass_time(node, 3600)
    assert node.endpoints == []
    node.serve(POD, OTHER_POD)
    assert node.endpoints == [OTHER_POD], "the next pod takes the clients that wait"
    node.serve(OTHER_POD)
    pass_time(node, 0)
    node.serve(POD, OTHER_POD)
    assert sorted(node.endpoints) == [POD, OTHER_POD]


async def test_ready_pods_count_as_about_to_end_for_a_while_after_the_scale_to_zero(node):
    assert node.cordons.are_pods_ending(WEB_WORKLOAD)
    assert not node.cordons.are_pods_ending(("bank", WORKLOAD))
    node.cordons.end(ASLEEP)
    assert node.cordons.are_pods_ending(WEB_WORKLOAD)
    node.world.now += ENDS_S
    assert not node.cordons.are_pods_ending(WEB_WORKLOAD)
    node.cordons.cordon(WEB, "8", node.world.now + CORDON_S)
    assert node.cordons.are_pods_ending(WEB_WORKLOAD)


@pytest.mark.parametrize("is_asleep", [False, True])
async def test_terminating_pods_do_not_delay_a_wake(node, is_asleep):
    if is_asleep:
        node.cordons.end(ASLEEP)
    node.terminate(POD)
    assert not node.cordons.are_pods_ending(WEB_WORKLOAD)


async def test_surviving_pods_get_clients_at_the_second_report_of_a_replica(node):
    node.cordons.note_woken(WEB_WORKLOAD)
    node.cordons.note_woken(WEB_WORKLOAD)
    assert node.endpoints == [], "the workload wasn't at zero"
    node.cordons.end(ASLEEP)
    node.cordons.note_woken(WEB_WORKLOAD)
    assert node.endpoints == []
    node.cordons.note_woken(WEB_WORKLOAD)
    assert node.endpoints == [POD]


async def test_services_of_a_workload_wait_together_for_its_pods_to_end(node):
    node.serve(POD, name="api", ip="10.96.0.2", handling=ASLEEP_WHEN_IDLE)
    (api,) = node.served_ports.of_service(API)
    node.cordons.cordon(API, "7", node.world.now + CORDON_S)
    node.terminate(POD)
    assert node.cordons.are_pods_ending(WEB_WORKLOAD), "the slice of one Service is behind"
    node.serve(POD)
    node.cordons.end(Vote("7", (WEB, API), is_over=True))
    for _ in range(2):
        assert not api.group.serving.endpoints
        node.cordons.note_woken(WEB_WORKLOAD)
    assert api.group.serving.endpoints
    assert node.endpoints == [POD]


async def test_terminating_pods_get_no_clients_even_if_the_workload_has_a_replica(node):
    node.cordons.end(ASLEEP)
    node.terminate(POD)
    for _ in range(3):
        node.cordons.note_woken(WEB_WORKLOAD)
    assert node.endpoints == []


async def test_clients_are_served_as_planned_once_the_service_names_no_workload(node):
    node.cordons.end(ASLEEP)
    node.serve(POD, handling=Handling(hold=Hold(60.0)))
    pass_time(node, 0)
    assert node.endpoints == [POD]
