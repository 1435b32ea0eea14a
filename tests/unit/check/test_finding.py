import pytest

from userspace_proxy.check.finding import Mark, error, ok, warning, worst


def test_a_finding_is_a_line_with_place_and_remedy():
    assert str(error("firewall", "it drops", "chain ip filter INPUT", "nft insert …")) == (
        "error    firewall: it drops [chain ip filter INPUT] -> nft insert …"
    )
    assert str(ok("config", "understood")) == "ok       config: understood"


@pytest.mark.parametrize(
    ("findings", "mark"),
    [
        pytest.param([], Mark.OK, id="nothing"),
        pytest.param([ok("a", "b"), warning("a", "b")], Mark.WARNING, id="warning"),
        pytest.param([error("a", "b"), warning("a", "b")], Mark.ERROR, id="error"),
    ],
)
def test_the_worst_finding_counts(findings, mark):
    assert worst(findings) is mark
