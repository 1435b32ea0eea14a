from userspace_proxy.causes.endpoints import refuses, silent
from userspace_proxy.causes.say import kubectl_words, remedy
from userspace_proxy.causes.slices import selects_no_pod
from userspace_proxy.diagnosis.incidents import Incidents
from userspace_proxy.status.incident_page import (
    ENDPOINTS_SHOWN,
    PORTS_SHOWN,
    render_incident,
    render_no_incident,
)
from userspace_proxy.status.sampling import Sample

from .views import NOW, make_endpoint, make_port, make_view

DEAD = refuses("10.244.0.9:8080").replace(count=12, first_at=NOW - 900, last_at=NOW - 2)


def pages_of(*ports):
    """Return the page of each incident."""
    view = make_view(*ports)
    sample = Sample(view, NOW)
    return [render_incident(sample, one.id).decode() for one in Incidents(view).all()]


def test_an_incident_shows_since_when_what_clients_met_where_and_what_to_do():
    dead = (make_endpoint("10.244.0.9:8080", node="node-7", cause=DEAD),)
    (page,) = pages_of(*(make_port(name, endpoints=dead, refused=3, saved=2) for name in "ab"))
    assert "<h1>10.244.0.9:8080 refuses connections: 2 Services, since " in page
    assert "15 min ago" in page
    assert "24 times, last 2 s ago" in page
    assert "6 failed, 4 connections saved" in page
    assert "<code>10.244.0.9:8080</code> <span" in page
    assert "on node-7" in page
    assert '<a href="../?q=service:shop/a">shop/a:http</a>' in page
    assert remedy(DEAD).partition(" (`")[0] in page
    assert f"<code>kubectl {kubectl_words(DEAD, '')}</code>" in page
    assert 'href="../static/troubleshooting.html#endpoint-refuses"' in page


def test_a_cause_that_is_a_state_was_not_counted():
    empty = selects_no_pod("shop/a", 1, "app=a", ("pods",))
    (page,) = pages_of(make_port("a", endpoints=(), cause=empty))
    assert "<dt>Seen" not in page
    assert "endpoint</h2>" not in page
    assert f"<code>kubectl {kubectl_words(empty, 'shop/a')}</code>" in page


def test_a_page_is_bounded_and_counts_what_it_leaves_out():
    def gone(number):
        at = f"10.244.{number // 200}.{number % 200 + 1}:80"
        return make_endpoint(at, node="node-7", cause=silent(at))

    ports = [
        make_port(f"web-{number:03}", endpoints=(gone(number),))
        for number in range(PORTS_SHOWN + 7)
    ]
    (page,) = pages_of(*ports)
    assert "<h1>node-7 does not answer: 207 endpoints of 207 Services</h1>" in page
    assert "and 7 more Service ports" in page
    assert f"and {PORTS_SHOWN + 7 - ENDPOINTS_SHOWN} more<" in page


def test_names_are_never_markup():
    dead = (make_endpoint("10.244.0.9:8080", cause=DEAD),)
    (page,) = pages_of(make_port("<b>evil\ud800", endpoints=dead))
    assert "<b>evil" not in page


def test_an_incident_that_is_over_is_none():
    sample = Sample(make_view(make_port()), NOW)
    assert render_incident(sample, "0123456789ab") is None
    assert b"<h1>This is over</h1>" in render_no_incident(sample)
