import pytest

from userspace_proxy.kernel.nf_tables.chains import Chain, Step, ends_in_drop

CHAINS = {
    "zone": Chain("t", "zone", steps=(Step("accept", "tcp dport 22"), Step("drop"))),
    "back": Chain("t", "back", steps=(Step("return"), Step("drop"))),
    "loop": Chain("t", "loop", steps=(Step("jump loop"),)),
}


def why(*steps, policy="accept"):
    chain = Chain("t", "INPUT", "filter", "input", policy=policy, steps=steps)
    return ends_in_drop(chain, CHAINS.get, lambda step: step.condition == "ct status dnat")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([], "", id="nothing"),
        pytest.param([Step("drop", "ip saddr 192.0.2.1")], "", id="perhaps"),
        pytest.param([Step("drop")], "rule drop", id="all"),
        pytest.param([Step("accept", "ct status dnat"), Step("drop")], "", id="let-in-before"),
        pytest.param([Step("jump zone")], "chain zone: rule drop", id="below"),
        pytest.param([Step("notrack"), Step("drop")], "rule drop", id="not-tracked"),
        pytest.param([Step("jump back"), Step("reject")], "rule reject", id="returns"),
        pytest.param([Step("goto back"), Step("reject")], "", id="goto-never-returns"),
        pytest.param([Step("jump loop"), Step("jump gone")], "", id="loop-and-gone"),
    ],
)
def test_a_rule_that_certainly_drops_is_found(steps, expected):
    assert why(*steps) == expected


def test_without_a_verdict_the_policy_decides():
    assert why(Step("accept", "tcp dport 22"), policy="drop") == "its policy is drop"
    assert why(Step("accept"), policy="drop") == ""
