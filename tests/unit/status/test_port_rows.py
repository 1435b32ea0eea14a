import pytest

from userspace_proxy.causes.endpoints import owes_answers, resets
from userspace_proxy.facts import LastMinuteFacts, Level
from userspace_proxy.status.history import History
from userspace_proxy.status.port_rows import ENDPOINTS_SHOWN, make_row
from userspace_proxy.status.rows import DOTS_SHOWN

from .views import make_endpoint, make_frontend, make_port

NOW = 1000.0


def row_of(port, history=None, *, is_open=True, is_alone=False):
    selected = port
    return make_row(selected, history or History(), is_open=is_open, is_alone=is_alone, now=NOW)


def endpoints(count, state="ready"):
    return tuple(make_endpoint(f"10.1.0.{n}:80", state, state == "ready") for n in range(count))


@pytest.mark.parametrize(
    ("endpoint", "level", "words"),
    [
        pytest.param(
            make_endpoint("a", "not ready, but published", True),
            Level.OK,
            "not ready, but published",
            id="published",
        ),
        pytest.param(
            make_endpoint("a", "ready", True, ejected_for_s=-1.0),
            Level.TROUBLE,
            "ejected until it answers",
            id="ejected-until-tried",
        ),
        pytest.param(
            make_endpoint("a", "not ready", False, ejected_for_s=12.4),
            Level.ATTENTION,
            "not ready",
            id="gone-while-ejected",
        ),
    ],
)
def test_an_endpoint_shows_its_state(endpoint, level, words):
    detail = row_of(make_port(endpoints=(endpoint,))).detail
    assert [(row.level, row.state) for row in detail.endpoints] == [(level, words)]


def test_a_collapsed_row_has_no_detail_and_shows_endpoints_as_dots():
    ejected = make_endpoint("10.1.1.1:80", ejected_for_s=3.0)
    row = row_of(
        make_port(endpoints=(ejected, *endpoints(1), *endpoints(9, "not ready"))), is_open=False
    )
    assert row.detail is None
    assert row.dots[:3] == (Level.TROUBLE, None, Level.ATTENTION)
    assert len(row.dots) == DOTS_SHOWN


def test_hidden_endpoints_are_counted_and_failing_endpoints_are_listed_first():
    many = (*endpoints(30), make_endpoint("a", "ready", False), *endpoints(1, "not ready"))
    detail = row_of(make_port(endpoints=many)).detail
    assert len(detail.endpoints) == ENDPOINTS_SHOWN
    assert detail.endpoints[0].state == "not ready"
    assert detail.more_endpoints == "12 more endpoints, all ready"


def test_a_single_service_port_shows_all_its_endpoints():
    detail = row_of(make_port(endpoints=endpoints(300)), is_alone=True).detail
    assert len(detail.endpoints) == 300
    assert detail.more_endpoints == ""


def test_only_the_first_20_frontends_are_shown():
    frontends = tuple(make_frontend(f"192.0.2.{n}:80", "NodePort", "there") for n in range(50))
    detail = row_of(make_port(frontends=frontends)).detail
    assert (len(detail.frontends), detail.more_frontends) == (20, 30)


def test_only_the_first_eight_networks_are_named():
    many = tuple(f"192.0.2.{n}/32" for n in range(20))
    detail = row_of(make_port(admits=many)).detail
    assert detail.admits.endswith("192.0.2.7/32 and 12 more networks")


@pytest.mark.parametrize(
    ("changes", "words", "says"),
    [
        pytest.param({}, "served", "", id="served"),
        pytest.param({"affinity_timeout_s": 90}, "served, clients pinned 1 min", "", id="pinned"),
    ],
)
def test_the_state_of_a_served_port_is_a_few_words_and_no_sentence(changes, words, says):
    row = row_of(make_port("web", **changes))
    assert (row.words, row.says, row.is_sentence, row.has_cause) == (words, says, False, False)


def test_a_cause_is_shown_in_its_row_or_linked_to_its_page():
    port = make_port("web", endpoints=(make_endpoint("10.1.0.1:80", cause=resets("10.1.0.1:80")),))
    alone = make_row(port, History(), now=NOW)
    assert alone.words in alone.says
    assert (alone.is_sentence, alone.words_link) == (True, "")
    elsewhere = make_row(port, History(), now=NOW, incident="incidents/7")
    assert (elsewhere.words, elsewhere.words_link) == (port.state.word, "incidents/7")
    assert elsewhere.says == port.state.sentence
    owed = LastMinuteFacts(20, unanswered_requests=9, cause=owes_answers("10.1.0.1:80"))
    neutral = row_of(make_port("web", endpoints=endpoints(1), last_minute=owed))
    assert (neutral.mark, neutral.has_cause) == (None, True)
