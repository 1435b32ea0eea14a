"""What the remedies for endpoints by name depend on."""

import pytest

from userspace_proxy.causes.names import name_not_allowed
from userspace_proxy.causes.say import remedy


@pytest.mark.parametrize(
    ("name", "suffix"), [("db.example.com", "example.com"), ("localhost", "localhost")]
)
def test_a_suffix_that_would_allow_a_name_is_shown(name, suffix):
    assert remedy(name_not_allowed(name)).endswith(f"lists suffixes, as {suffix}")
