from __future__ import annotations

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering import SteeringFacts, choice, make_steering

FACTS = SteeringFacts(refuse_port=35999)


@pytest.mark.parametrize("name", ["iptables", "local", "none"])
def test_a_name_makes_its_steering(name):
    assert make_steering(name, FACTS).name == name


def test_auto_takes_local_in_a_namespace_of_our_own():
    steering = make_steering("auto", FACTS, own_namespace=True)
    assert steering.name == "local"


@pytest.mark.parametrize(
    ("has_library", "has_right", "expected"),
    [
        pytest.param(True, True, "iptables", id="all-there"),
        pytest.param(
            False,
            True,
            "cannot choose a steering: iptables needs python-iptables; local needs a sandbox "
            '(pip install "userspace-proxy[iptables]" and run as root, or use --steering=none)',
            id="no-library",
        ),
        pytest.param(
            True,
            False,
            "cannot choose a steering: iptables needs NET_ADMIN; local needs a sandbox "
            '(pip install "userspace-proxy[iptables]" and run as root, or use --steering=none)',
            id="no-right",
        ),
    ],
)
def test_auto_on_a_node(monkeypatch, has_library, has_right, expected):
    monkeypatch.setattr(choice, "has_python_iptables", lambda: has_library)
    monkeypatch.setattr(choice, "has_net_admin", lambda: has_right)
    try:
        answer = choice.choose("auto", own_namespace=False)
    except SteeringError as exc:
        answer = str(exc)
    assert answer == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "nftables",
            "cannot steer by nftables: not in this version (use --steering=iptables)",
            id="to-come",
        ),
        pytest.param(
            "ipvs",
            "cannot steer by 'ipvs': no such steering (use auto, iptables, local or none)",
            id="unknown",
        ),
    ],
)
def test_other_names_are_errors_with_the_way_out(name, message):
    with pytest.raises(SteeringError) as caught:
        make_steering(name, FACTS)
    assert str(caught.value) == message
