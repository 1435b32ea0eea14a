import pytest

from tests import conftest


def report(test: str, reason: str) -> pytest.TestReport:
    """Return the report of a skipped test."""
    skip = ("tests/node/test_it.py", 1, f"Skipped: {reason}")
    return pytest.TestReport(test, ("", 1, ""), {}, "skipped", skip, "setup")


def test_in_ci_a_skipped_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    skipped = report("test_it.py::test_a", "this kernel lacks nat")
    conftest._forbid_skips(skipped)
    assert skipped.failed
