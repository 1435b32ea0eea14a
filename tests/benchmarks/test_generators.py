"""Outputs of load generators."""

import pytest

from benchmarks.generators import read_wrk
from userspace_proxy.errors import SandboxError

# wrk 4.1 pads a time in seconds with a blank, because its unit is shorter.
OUTPUT = """Running 2s test @ http://10.0.0.1:80/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    15.01ms  110.70ms   1.47s    97.71%
    Req/Sec    11.92k     3.77k   16.98k    71.43%
  Latency Distribution
     50%    {p50}
     75%    1.60ms
     90%    3.14ms
     99%    {p99}
  24903 requests in 2.10s, 3.13MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
Requests/sec:  11857.21
Transfer/sec:      1.49MB
"""


@pytest.mark.parametrize(
    ("p50", "p99", "read"),
    [
        pytest.param("830.00us", "24.01ms", (0.83, 24.01), id="microseconds"),
        pytest.param("1.05ms", "1.32s ", (1.05, 1320.0), id="milliseconds"),
        pytest.param("1.20s ", "1.02m ", (1200.0, 61200.0), id="seconds"),
    ],
)
def test_latencies_in_any_unit_are_parsed(p50, p99, read):
    values = read_wrk(OUTPUT.format(p50=p50, p99=p99))
    assert (values["p50_ms"], values["p99_ms"]) == pytest.approx(read)
    assert (values["count"], values["rate"], values["errors"]) == (24903, 11857.21, 4)


def test_an_unknown_output_is_an_error():
    with pytest.raises(SandboxError, match="cannot read wrk's output: unable to connect"):
        read_wrk("unable to connect")
