"""Options have safe defaults for an embedded proxy, and the types of their settings."""

import types
import typing

import pytest

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.config.settings import TABLE, Settings
from userspace_proxy.dataplane import Tuning

HINTS = {**typing.get_type_hints(Options), **typing.get_type_hints(Tuning)}
RECEIVED = {name: row for name, row in TABLE.items() if (row.option or name) in HINTS}


def test_an_embedded_proxy_opens_no_server_and_owns_no_namespace_by_default():
    options = Options()
    assert options.admin is None
    assert options.health is None
    assert not options.is_own_namespace


def test_proxy_ports_are_below_node_ports_and_ephemeral_ports():
    first, last = Options().proxy_ports
    assert 1024 < first < last < 30000
    assert last - first >= 10_000


def types_of(hint):
    """Return the types of a union; a named tuple counts as a plain tuple."""
    parts = typing.get_args(hint) if type(hint) is types.UnionType else (hint,)
    return {
        tuple[*typing.get_type_hints(part).values()] if hasattr(part, "_fields") else part
        for part in parts
    }


@pytest.mark.parametrize("name", [name for name, row in RECEIVED.items() if row.convert is None])
def test_an_option_has_the_type_of_its_setting(name):
    setting = typing.get_type_hints(Settings)[name]
    assert types_of(setting) == types_of(HINTS[TABLE[name].option or name])


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.option or row.convert])
def test_each_option_row_names_an_option(name):
    assert name in RECEIVED


def test_proxy_options_and_worker_tuning_share_no_names():
    assert not typing.get_type_hints(Options).keys() & typing.get_type_hints(Tuning).keys()
