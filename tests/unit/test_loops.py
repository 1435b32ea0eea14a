"""Which event loop processes start."""

import asyncio
import subprocess
import sys

import uvloop

from userspace_proxy.loops import loop_factory

WITHOUT = """\
import sys
sys.modules["uvloop"] = None
from userspace_proxy.loops import loop_factory
import asyncio
print(loop_factory() is asyncio.new_event_loop)
"""


def test_it_is_uvloops():
    assert loop_factory() is uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert isinstance(runner.get_loop(), uvloop.Loop)


def test_it_is_asyncios_where_uvloop_is_not_installed():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
