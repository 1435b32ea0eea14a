import time

import pytest

from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say
from userspace_proxy.causes.slices import selects_no_pod
from userspace_proxy.facts import IncidentFacts
from userspace_proxy.status.incident_words import (
    client_effects,
    headline,
    names_in_line,
    since,
    time_of_day,
)

# This is 2026-07-01 14:02:11 UTC.
AT = 1_782_914_531.0
DEAD = refuses("10.244.0.9:8080").replace(count=412, first_at=AT, last_at=AT + 58)
NAMES = [f"shop/web-{number}" for number in range(35)]


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def incident(cause=DEAD, **facts):
    return IncidentFacts(cause=cause, **{"services": NAMES, "endpoints": ["a"], **facts})


def test_an_incident_is_formatted_in_one_line():
    words = f"{say(DEAD, Form.SHORT)}: 35 Services, since 14:02"
    assert headline(incident(), AT + 60) == words
    past = DEAD.replace(when=When.PAST)
    words = f"{say(past, Form.SHORT)}: 1 Service, since 14:02"
    assert headline(incident(past, services=["shop/web"]), AT) == words
    several = incident(endpoints=["a", "b"], services=NAMES[:2])
    assert "2 endpoints of 2 Services" in headline(several, AT)


def test_a_cause_describing_a_state_has_no_time():
    state = incident(selects_no_pod("shop/web", 1, "app=web", ("pods",)), services=["shop/web"])
    assert headline(state, AT).endswith(": 1 Service")
    assert list(client_effects(state, AT)) == []


def test_the_start_of_an_incident_on_an_earlier_day_includes_the_date():
    assert since(incident(), AT + 43_200) == "since 01 Jul 14:02"


def test_effects_on_clients_are_described_in_words():
    seen, failed, wait = client_effects(incident(last_minute=1, waiting=3), AT + 60)
    assert (seen, wait) == ("seen 412 times, last 2 s ago", "3 clients wait for an endpoint")
    assert failed.startswith("1 client got no answer ")
    _, failed, wait = client_effects(incident(last_minute=2, waiting=1), AT + 60)
    assert wait == "1 client waits for an endpoint"
    assert failed.startswith("2 clients got no answer ")


def test_an_incident_shows_as_many_service_names_as_fit():
    assert names_in_line(incident(), 40) == "shop/web-0, shop/web-1 and 33 more"
    assert names_in_line(incident(), 1) == "shop/web-0 and 34 more"
    assert names_in_line(incident(services=NAMES[:3]), 34) == "shop/web-0, shop/web-1, shop/web-2"
    assert names_in_line(incident(services=NAMES[:1]), 1) == "shop/web-0"


def test_times_are_shown_in_the_nodes_local_time():
    assert time_of_day(AT) == "14:02:11"
