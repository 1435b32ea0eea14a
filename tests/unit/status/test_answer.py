import msgspec

from userspace_proxy.status.answer import StateAnswer
from userspace_proxy.status.port_state import Level


def test_unknown_fields_are_ignored_so_that_more_can_be_added():
    text = (
        b'{"level":"ok","word":"served","sentence":"","causes":[],"way_out":"","code":null,"x":1}'
    )
    state = msgspec.json.decode(text, type=StateAnswer)
    assert (state.level, state.word, state.code) == (Level.OK, "served", None)
