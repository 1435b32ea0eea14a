import pytest

from tests import conftest, kernel_needs
from userspace_proxy.kernel.offers import FOR_IPTABLES, FOR_NFTABLES

LEGACY = ("legacy tables", "legacy tables of IPv6")


def report(test: str, reason: str) -> pytest.TestReport:
    """Return the report of a test that was skipped."""
    skip = ("tests/node/test_it.py", 1, f"Skipped: {reason}")
    return pytest.TestReport(test, ("", 1, ""), {}, "skipped", skip, "setup")


def test_each_test_that_was_left_out_is_a_row_with_what_the_kernel_lacks() -> None:
    reports = [
        report("test_it.py::test_b", "this kernel lacks table owner"),
        report("test_it.py::test_a", "this kernel lacks nat"),
        report("test_it.py::test_c", "needs root"),
    ]
    assert kernel_needs.table(reports) == [
        "nat          test_it.py::test_a",
        "table owner  test_it.py::test_b",
    ]


def test_ci_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    skipped = report("test_it.py::test_a", "this kernel lacks nat")
    conftest._forbid_skips(skipped)
    assert skipped.failed


def test_a_part_that_is_missing_leaves_the_test_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_needs.need("nat")
    monkeypatch.setattr(kernel_needs, "_lacks", lambda: frozenset({"nat"}))
    with pytest.raises(pytest.skip.Exception, match="this kernel lacks nat"):
        kernel_needs.need("nat")


@pytest.mark.netns
@pytest.mark.parametrize("steering", ["nftables", "iptables", "local"])
def test_a_test_needs_what_its_steering_needs(
    request: pytest.FixtureRequest, steering: str
) -> None:
    needed = {"nftables": {*FOR_NFTABLES}, "iptables": {*FOR_IPTABLES, *LEGACY}}
    assert kernel_needs.parts_needed(request.node) == needed.get(steering, set())


@pytest.mark.needs("table owner")
def test_a_mark_names_a_need(request: pytest.FixtureRequest) -> None:
    assert kernel_needs.parts_needed(request.node) == {"table owner"}
