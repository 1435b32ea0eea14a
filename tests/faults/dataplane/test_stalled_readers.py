"""Only a peer that is dead is given up; a reader that stalls may take its time."""

import json
import os
import subprocess
import sys

import pytest

OWN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--net")


@pytest.mark.long
def test_a_stalled_reader_outlives_dead_peers_and_gets_everything():
    tried = subprocess.run([*OWN_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        reason = f"no user namespace: {tried.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [*OWN_NAMESPACE, sys.executable, "-m", "tests.faults.dataplane.stalled"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen.pop("got") == seen.pop("sent") > 0
    assert seen == {"is_alive": True, "bugs": []}
