from __future__ import annotations

import subprocess
import sys

import pytest

FIRST_USES = """\
import sys
import threading

import msgspec

from userspace_proxy.model.wire import convert
from userspace_proxy_kubectl.nodes.decoding import Allowance


def use(type_, start):
    start.wait()
    match sys.argv[1]:
        case "wire":
            convert({"inner": {"inner": {}}}, type_)
        case "answers":
            Allowance(body=1 << 20).decode(b'{"inner": {"inner": {}}}', type_)


sys.setswitchinterval(1e-6)
for _ in range(300):
    innermost = msgspec.defstruct("Innermost", [(f"f{i}", "int | None", None) for i in range(8)])
    inner = msgspec.defstruct("Inner", [("inner", innermost)])
    outer = msgspec.defstruct("Outer", [("inner", inner)])
    start = threading.Barrier(4)
    threads = [threading.Thread(target=use, args=(outer, start)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@pytest.mark.parametrize("user", ["wire", "answers"])
def test_several_threads_can_use_a_type_for_the_first_time_concurrently(user):
    # A failure would end the process with SIGSEGV, so the test runs in a subprocess.
    assert subprocess.run([sys.executable, "-c", FIRST_USES, user], check=False).returncode == 0
