"""What the remedies for endpoints by name depend on."""

import pytest

from userspace_proxy.causes.names import name_not_allowed, name_stale, name_unresolved
from userspace_proxy.causes.say import remedy
from userspace_proxy.model.endpoint_names import INSTALL_DNSPYTHON, NO_DNSPYTHON


@pytest.mark.parametrize("row", [name_unresolved, name_stale])
def test_without_dnspython_the_remedy_is_what_to_install(row):
    assert remedy(row("db.example.com", NO_DNSPYTHON)).endswith(f"On the node {INSTALL_DNSPYTHON}")
    assert remedy(row("db.example.com", "DNS has no such name")).endswith("dig db.example.com")


@pytest.mark.parametrize(
    ("name", "suffix"), [("db.example.com", "example.com"), ("localhost", "localhost")]
)
def test_a_suffix_that_would_allow_a_name_is_shown(name, suffix):
    assert remedy(name_not_allowed(name)).endswith(f"lists suffixes, as {suffix}")
