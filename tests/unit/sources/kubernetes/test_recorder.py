"""Events on a fake API server: sent, counted and refused."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy.sources import Happening
from userspace_proxy.sources.kubernetes.events import NAMESPACE_MAX
from userspace_proxy.sources.kubernetes.recorder import Recorder
from userspace_proxy.sources.kubernetes.responses import TransportError

from ...agent.watched import turn
from ..running import running
from .objects import service

SHOP = ServiceKey("shop", "web")
REPAIRED = Happening("SteeringRepaired", "Repair", "3 rules put right")
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"


@pytest.fixture
async def recorder(client):
    recorder = Recorder(client, "node-1", uids, pause=at_once, every_s=0.01)
    async with sending(recorder):
        yield recorder


async def at_once(_seconds):
    """Send the next request without a pause."""
    await turn()


def uids(service):
    return {"default/web": "4711"}.get(str(service), "")


@contextlib.asynccontextmanager
async def sending(recorder):
    task = asyncio.create_task(recorder.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_an_event_is_posted_and_a_repeat_raises_its_count(api, recorder):
    recorder.record(REPAIRED)
    await api.until(lambda a: len(a.sent) == 1)
    recorder.record(REPAIRED)
    await api.until(lambda a: len(a.sent) == 2)
    (post, path, event), (patch, patched, change) = api.sent
    assert (post, path, event["note"]) == ("POST", EVENTS, "3 rules put right")
    assert (patch, patched) == ("PATCH", f"{EVENTS}/{event['metadata']['name']}")
    assert change["series"]["count"] == 2
    assert event["regarding"]["uid"] == event["regarding"]["name"] == "node-1"


async def test_a_service_event_has_the_uid_that_describe_searches_for(api, recorder):
    web = ServiceKey("default", "web")
    recorder.record(Happening("ServiceNotServed", "Serve", "held", service=web))
    await api.until(lambda a: len(a.sent) == 1)
    assert api.sent[0][2]["regarding"]["uid"] == "4711"
    assert len(api.requests) == 1, "the source has read the UID"


async def test_a_flood_from_one_namespace_does_not_block_events_of_other_namespaces(api, client):
    """Issue 52: one namespace used all 8 requests a second."""
    paused = []

    async def pause(seconds):
        paused.append(seconds)
        await turn()

    recorder = Recorder(client, "node-1", uids, pause=pause)
    for number in range(3000):
        key = ServiceKey("flood", f"web-{number}")
        recorder.record(Happening("NeedPods", "Wake", "needed", service=key))
    recorder.record(Happening("NeedPods", "Wake", "needed", service=SHOP))
    recorder.record(REPAIRED)
    async with sending(recorder):
        await until(lambda: len(paused) == NAMESPACE_MAX + 2)
        assert recorder._correlator.next_due_s(recorder._now()) is None
    regarding = [event["regarding"] for _, _, event in api.sent]
    assert {"web", "node-1"} <= {each["name"] for each in regarding[:3]}
    assert len(api.requests) == len(api.sent) == NAMESPACE_MAX + 2
    assert set(paused) == {0.25}


async def until(condition):
    """Let the recorder run until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.005)


async def test_without_permission_one_warning_is_logged_and_no_event_is_sent(api, recorder, caplog):
    api.refuse("events", 403, message="events is forbidden", times=99)
    recorder.record(REPAIRED)
    await until(lambda: caplog.records)
    recorder.record(Happening("ServiceNotServed", "Serve", "held", service=SHOP))
    await api.until(lambda a: len(a.requests) == 2)
    recorder.record(REPAIRED)
    recorder.record(Happening("SteeringDrifted", "Repair", "lost"))
    await until(lambda: recorder._correlator.next_due_s(recorder._now()) > 60)
    assert [record.getMessage() for record in caplog.records] == [
        "cannot write Events: events is forbidden (grant this user create and patch on events in "
        "API group events.k8s.io)"
    ]
    assert len(api.requests) == 2


GOING = "unable to create new content in namespace shop because it is being terminated"


async def test_a_401_is_not_logged_and_silences_only_its_namespace(api, recorder, caplog):
    api.refuse("events", 401)
    recorder.record(Happening("ServiceNotServed", "Serve", "held", service=SHOP))
    await api.until(lambda a: len(a.requests) == 1)
    recorder.record(REPAIRED)
    await api.until(lambda a: len(a.sent) == 1)
    assert (api.sent[0][1], caplog.records) == (EVENTS, [])


async def test_a_terminating_namespace_causes_neither_events_nor_a_warning(api, recorder, caplog):
    api.refuse("events", 403, message=GOING)
    recorder.record(Happening("ServiceNotServed", "Serve", "held", service=SHOP))
    await api.until(lambda a: len(a.requests) == 1)
    await until(lambda: recorder._correlator.next_due_s(recorder._now()) is None)
    recorder.record(REPAIRED)
    await api.until(lambda a: len(a.sent) == 1)
    assert not caplog.records


async def test_an_event_whose_response_was_lost_counts_as_sent(api, recorder):
    recorder.record(REPAIRED)
    recorder.record(REPAIRED)
    api.refuse("events", 409, message="already exists")
    await api.until(lambda a: len(a.sent) == 1)
    ((method, path, change),) = api.sent
    assert (method, change["series"]["count"]) == ("PATCH", 2)
    assert path.startswith(f"{EVENTS}/node-1.")


async def test_an_event_with_a_lost_response_is_posted_again_under_its_name(api, client):
    """A patch of a nonexistent Event would fail with 404, and delay the Event by two minutes."""
    posted = []

    class Lossy:
        async def send(self, method, path, item, *, content_type):
            if method == "POST":
                posted.append(item["metadata"]["name"])
                if len(posted) == 1:
                    raise TransportError("Connection reset by peer")
            return await client.send(method, path, item, content_type=content_type)

    recorder = Recorder(Lossy(), "node-1", uids, pause=at_once, every_s=0.01)
    recorder.record(REPAIRED)
    async with sending(recorder):
        await api.until(lambda a: len(a.requests) == 1)
    assert api.requests == [f"POST {EVENTS}"]
    assert posted == [posted[0]] * 2


async def test_an_event_missing_on_the_server_is_recreated(api, recorder):
    recorder.record(REPAIRED)
    await api.until(lambda a: len(a.sent) == 1)
    api.refuse("events", 404)
    recorder.record(REPAIRED)
    await api.until(lambda a: len(a.sent) == 2)
    assert [method for method, _, _ in api.sent] == ["POST", "POST"]
    assert api.sent[1][2]["series"]["count"] == 2


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_an_event_is_resent_after_a_server_error(api, recorder, code):
    api.refuse("events", code)
    recorder.record(REPAIRED)
    await api.until(lambda a: len(a.sent) == 1)
    assert len(api.requests) == 2


@pytest.mark.parametrize("code", [422, 404])
async def test_a_permanently_rejected_event_is_dropped(api, recorder, caplog, code):
    api.refuse("events", code, message="note: too long")
    recorder.record(REPAIRED)
    await api.until(lambda a: len(a.requests) == 1)
    recorder.record(Happening("SteeringDrifted", "Repair", "lost"))
    await api.until(lambda a: len(a.sent) == 1)
    assert api.sent[0][2]["reason"] == "SteeringDrifted"
    assert [r.cause for r in caplog.records] == ["note: too long"]


async def test_a_source_records_events_while_running(api, source_of):
    item = service()
    item["metadata"] |= {"namespace": "default", "uid": "4711"}
    api.put(item)
    source = source_of(api, node_name="node-1")
    async with running(source) as published:
        await published.first()
        web = ServiceKey("default", "web")
        source.record(Happening("ServiceNotServed", "Serve", "held", service=web))
        await api.until(lambda a: len(a.sent) == 1)
    assert api.sent[0][2]["reportingInstance"] == "node-1"
    assert api.sent[0][2]["regarding"]["uid"] == "4711"


async def test_without_a_node_name_no_events_are_sent(api, source_of):
    source = source_of(api)
    async with running(source) as published:
        await published.first()
        source.record(REPAIRED)
        await api.until(lambda a: a.watch_count("services") == 1)
    assert api.sent == []
