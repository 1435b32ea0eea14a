import pytest

from userspace_proxy.diagnosis.paths import (
    UNKNOWN,
    PathView,
    counted_in_words,
    path_in_words,
    probes_in_words,
    target_in_words,
)
from userspace_proxy.facts import ProbesFacts, is_probed
from userspace_proxy.model import DataPath, Frontend, Protocol
from userspace_proxy.model.serving import Serving
from userspace_proxy.policy import PathDecision

from ..status.views import make_port, replace

KERNEL = DataPath.KERNEL
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
    ("path", "protocol", "said"),
    [
        pytest.param(PathView(KERNEL, kernel_connections=1), "TCP",
                     f"1 connection since the start; {UNKNOWN}", id="one"),
        pytest.param(PathView(KERNEL, kernel_connections=2), "UDP",
                     f"2 flows since the start; {UNKNOWN}", id="flows"),
        pytest.param(PathView(KERNEL, kernel_connections=0), "TCP",
                     f"0 connections since the start; {UNKNOWN}", id="none"),
        pytest.param(PathView(kernel_connections=5), "TCP",
                     "5 connections took the kernel path since the start", id="switched"),
        pytest.param(PathView(kernel_connections=0, socket_connections=0), "TCP", "", id="never"),
        pytest.param(PathView(), "TCP", "", id="other-steering"),
        pytest.param(PathView(KERNEL), "TCP",
                     f"this kernel doesn't count connections there; {UNKNOWN}", id="old-kernel"),
        pytest.param(PathView(KERNEL, kernel_connections=5, socket_connections=1), "TCP",
                     "1 connection at connect() since the start, and 5 by rules, whose bytes and "
                     "failures aren't known", id="hooks"),
        pytest.param(PathView(KERNEL, socket_connections=2), "TCP",
                     "2 connections at connect() since the start; this kernel doesn't count those "
                     "by rules", id="hooks-of-an-old-kernel"),
        pytest.param(PathView(kernel_connections=5, socket_connections=1), "TCP",
                     "6 connections took the kernel path since the start", id="hooks-switched"),
    ],
)  # fmt: skip
def test_what_is_known_of_connections_on_the_kernel_path_is_said(path, protocol, said):
    assert counted_in_words(replace(make_port(protocol=protocol), path=path)) == said


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
