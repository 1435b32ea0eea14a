"""What is listed about a Service, and what remedies depend on."""

import pytest

from userspace_proxy.causes.say import remedy
from userspace_proxy.causes.services import (
    NOTES_MAX,
    external_ip_off,
    first_notes,
    lost_as_address,
    lost_to,
    more_notes,
)

from .samples import a_note


@pytest.mark.parametrize("further", [0, 1, 5])
def test_of_many_notes_the_first_are_listed(further):
    some = tuple(a_note(f"field {number}") for number in range(NOTES_MAX + further))
    more = (more_notes(),) if further else ()
    assert first_notes(iter(some)) == (*some[:NOTES_MAX], *more)


def test_an_external_ip_that_is_allowed_and_taken_has_another_remedy():
    ip, why = "203.0.113.9", "it is an address of this node"
    assert "--allow-external-ips" in remedy(external_ip_off(ip, why))
    assert "no machine of the cluster has" in remedy(external_ip_off(ip, why, is_allowed=True))


@pytest.mark.parametrize("kind", ["cluster IP", "node port"])
def test_a_service_that_lost_an_address_is_to_get_another_of_its_kind(kind):
    for row in (lost_to, lost_as_address):
        assert remedy(row("10.96.0.7:80/TCP", kind, "x", "shop/web")).endswith(f"another {kind}")
