import pytest

from userspace_proxy.diagnosis.paths import (
    UNKNOWN,
    PathView,
    counted_in_words,
    path_in_words,
    probes_in_words,
    target_in_words,
    translated_in_words,
)
from userspace_proxy.facts import ProbesFacts, is_probed
from userspace_proxy.model import DataPath, Frontend, Protocol
from userspace_proxy.model.serving import Serving
from userspace_proxy.policy import PathDecision

from ..status.views import make_port, replace

SINCE = f"since the start; {UNKNOWN}"
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)


def test_a_path_has_its_age_and_its_reason_where_they_are_known():
    assert path_in_words("kernel", "it is asked for", 100.0, 280.0) == (
        "kernel for 3 min: it is asked for"
    )
    assert path_in_words("userspace", "", 0.0, 280.0) == "userspace"


def test_a_path_counts_from_the_moment_at_which_it_comes_into_force():
    chosen = PathDecision(DataPath.KERNEL, "its annotation asks for it")
    view = PathView(since=90.0, kernel_connections=3).follow(chosen, 100.0)
    assert view == PathView(DataPath.KERNEL, 100.0, "its annotation asks for it", 3)
    assert view.follow(PathDecision(DataPath.KERNEL, "auto"), 110.0) == PathView(
        DataPath.KERNEL, 100.0, "auto", 3
    )


@pytest.mark.parametrize(
    ("path", "count", "protocol", "said"),
    [
        pytest.param("kernel", 1, "TCP", f"1 connection by rules {SINCE}", id="one"),
        pytest.param("kernel", 2, "UDP", f"2 flows by rules {SINCE}", id="flows"),
        pytest.param("kernel", 0, "TCP", f"0 connections by rules {SINCE}", id="none"),
        pytest.param("userspace", 5, "TCP",
                     "5 connections took the kernel path by rules since the start", id="switched"),
        pytest.param("userspace", 0, "TCP", "", id="never"),
        pytest.param("userspace", None, "TCP", "", id="other-steering"),
        pytest.param("kernel", None, "TCP",
                     f"this kernel doesn't count connections by rules; {UNKNOWN}", id="old-kernel"),
    ],
)  # fmt: skip
def test_what_is_known_of_connections_on_the_kernel_path_is_said(path, count, protocol, said):
    assert counted_in_words(path, count, protocol) == said


@pytest.mark.parametrize(
    ("path", "count", "said"),
    [
        pytest.param("kernel", 1, "1 connection at connect() since the start", id="one"),
        pytest.param("kernel", 0, "0 connections at connect() since the start", id="none"),
        pytest.param("kernel", None, "", id="no-hooks"),
        pytest.param("userspace", 5, "5 connections at connect() since the start", id="switched"),
        pytest.param("userspace", 0, "", id="never"),
    ],
)
def test_what_was_translated_at_connect_is_said(path, count, said):
    assert translated_in_words(path, count) == said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param(PathView(), "", id="no-hooks"),
        pytest.param(
            PathView(socket_connections=0),
            ": programs of this node at connect(), others by rules",
            id="hooks",
        ),
        pytest.param(
            PathView(socket_connections=0, left_to_rules={WEB: "its source ranges decide"}),
            ": by rules, as its source ranges decide",
            id="left-to-rules",
        ),
    ],
)
def test_who_leads_the_clients_of_a_frontend_is_said(path, said):
    assert target_in_words(path, WEB) == f"the kernel, straight to endpoints{said}"


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        pytest.param(ProbesFacts(), "", id="none"),
        pytest.param(
            ProbesFacts(1, 1.5, 2_000),
            "1 endpoint probed, every 1.5 s while they answer, at most 2,000 probes a second",
            id="one",
        ),
        pytest.param(
            ProbesFacts(2, 0.0, 2_000),
            "2 endpoints probed, at most 2,000 probes a second",
            id="none-was-probed-twice",
        ),
        pytest.param(
            ProbesFacts(30_000, 15.0, 2_000),
            "30,000 endpoints probed, every 15 s while they answer, at most 2,000 probes a second",
            id="many",
        ),
    ],
)
def test_probes_are_said_with_their_budget(probes, said):
    assert probes_in_words(probes) == said


def test_only_endpoints_of_tcp_with_path_auto_are_probed():
    plan = replace(make_port().plan, path=PathDecision(DataPath.AUTO))
    assert is_probed(plan)
    assert not is_probed(replace(plan, protocol=Protocol.UDP))
    assert not is_probed(replace(plan, serving=Serving()))
    assert not is_probed(replace(plan, path=PathDecision(DataPath.KERNEL)))
