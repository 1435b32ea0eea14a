import pytest

from userspace_proxy.facts import LATELY_S, SourceFacts
from userspace_proxy.model import Failure
from userspace_proxy.plan import Side
from userspace_proxy.policy.causes import dial_failed
from userspace_proxy.status.port_state import judge
from userspace_proxy.status.service_mistakes import with_mistakes
from userspace_proxy.status.sides import with_sides

from .views import NOW, make_address, make_endpoint, make_port, replace

POD = "10.244.1.191:8080"
TIMED_OUT, REFUSED = Failure.SILENT, Failure.REFUSED


def failed(failure=TIMED_OUT):
    cause = dial_failed(make_address(POD), failure, "")
    return replace(cause, count=46, first_at=NOW - 90, last_at=NOW)


def two_sides(cause=None, *, seconds_ago=1.0, inside=None, **changes):
    """Return both sides of a Service port: inside clients were answered, outside ones weren't."""
    answers = make_endpoint(POD, answered_at=NOW - seconds_ago, cause=inside)
    fails = make_endpoint(POD, cause=cause or failed(), **changes)
    return (
        make_port("web", endpoints=(answers,)),
        make_port("web", side=Side.EXTERNAL, endpoints=(fails, make_endpoint("10.244.1.9:8080"))),
    )


def test_an_endpoint_that_answers_the_other_side_does_not_hang():
    inside, outside = two_sides()
    outside = replace(outside, endpoints=outside.endpoints[:1])
    served, failing = with_mistakes((inside, outside), SourceFacts())
    assert served is inside
    assert failing.state.sentence == (
        f"Clients fail: {POD} does not answer clients that dial these addresses, and answers others"
    )
    (cause,) = failing.state.causes
    assert (cause.code, cause.count) == (failed().code, 46)
    assert "NetworkPolicy" in failing.state.way_out
    assert failing.plan is outside.plan
    outside.taken_by = "ip evil pre"
    _, failing = with_mistakes((inside, outside), SourceFacts())
    assert failing.taken_by == "ip evil pre"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"cause": failed(REFUSED)}, id="another-failure"),
        pytest.param({"is_past": True}, id="a-while-ago"),
        pytest.param({"seconds_ago": LATELY_S}, id="others-answered-a-while-ago"),
        pytest.param(
            {"cause": replace(failed(), first_at=NOW - 0.5)}, id="others-answered-before-it-failed"
        ),
        pytest.param({"inside": failed()}, id="others-fail-too"),
    ],
)
def test_it_is_not_said_to_answer_others_unless_it_does(changes):
    ports = two_sides(**changes)
    assert list(with_sides(ports, judge)) == list(ports)


def test_other_services_are_left_alone():
    inside, outside = two_sides()
    other = replace(outside, service="other")
    family = replace(outside, family="IPv6")
    ports = (inside, other, family)
    assert all(a is b for a, b in zip(with_sides(ports, judge), ports, strict=True))
    assert with_sides((inside,), judge) == (inside,)


def test_endpoints_that_do_not_fail_stay_as_they_are():
    inside, outside = two_sides()
    changed = with_sides((inside, outside), judge)[1]
    assert changed.endpoints[1] == outside.endpoints[1]
    assert changed.endpoints[0] != outside.endpoints[0]
