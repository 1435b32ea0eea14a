from __future__ import annotations

import contextlib
import json

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.iptables.helper_process import (
    HelperEnded,
    HelperProcess,
    as_rows,
    from_rows,
)

FACTS = {"refuse_port": 35999}


@pytest.fixture
def helper():
    helper = HelperProcess(4)
    yield helper
    helper.close()


def test_no_helper_runs_before_a_request_and_a_failing_request_is_an_error(helper, monkeypatch):
    assert helper.pid is None
    assert helper.is_new
    monkeypatch.setenv("XTABLES_LIBDIR", "/nowhere")
    with pytest.raises(SteeringError):
        helper.ask({"do": "an unknown request", "facts": FACTS})


def test_a_helper_exiting_without_a_reply_is_an_error_with_its_last_line(helper):
    with pytest.raises(SteeringError) as caught:
        helper.ask({"do": "start"})
    assert str(caught.value) == (
        "cannot steer by iptables: the helper process for IPv4 ended with status 1: "
        "KeyError: 'facts' (it is started anew by the next sync)"
    )
    assert helper.is_new


def test_a_helper_process_can_be_closed_twice(helper):
    helper.close()
    helper.close()
    assert helper.pid is None


def test_a_helper_that_crashed_twice_is_not_restarted_during_the_pause(helper):
    for _ in range(2):
        with pytest.raises(HelperEnded):
            helper.ask({"do": "start"})
    with pytest.raises(SteeringError) as caught:
        helper.ask({"do": "start", "facts": FACTS})
    assert str(caught.value) == (
        "cannot steer by iptables: 2 helper processes for IPv4 in a row ended without an answer, "
        "the last one ended with status 1: KeyError: 'facts' (the next one is started in 1 s)"
    )
    assert helper.pid is None
    assert helper.restarts == 1


def test_a_helper_that_crashes_after_another_answered_is_replaced_without_a_pause(helper):
    for _ in range(2):
        with pytest.raises(HelperEnded):
            helper.ask({"do": "start"})
        # The answer may be an error about a missing privilege.
        with contextlib.suppress(SteeringError):
            helper.ask({"do": "labels", "facts": FACTS})
        assert helper.pid is not None
        helper.close()
    assert helper.restarts == 2


def test_frontends_and_ports_round_trip_through_a_message():
    affected = {
        Frontend("10.96.7.1", 80, Protocol.TCP): 36001,
        Frontend("fd00:96::a", 53, Protocol.UDP): None,
        Frontend("fd00:96::a", 30000, Protocol.TCP, last=30100): 36002,
    }
    assert from_rows(json.loads(json.dumps(as_rows(affected)))) == affected
