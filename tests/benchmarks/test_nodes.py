"""The measurement of all nodes, at a small size."""

import re

from benchmarks import nodes


async def test_three_nodes_are_measured(monkeypatch, capsys):
    monkeypatch.setattr(nodes, "SETTLE_S", 1.0)
    monkeypatch.setattr(nodes, "IDLE_S", 1.0)
    await nodes.run(3, 2)
    out = capsys.readouterr().out
    for name in ("first", "memory", "bytes", "idle"):
        assert re.search(rf"^{name} +[\d,.]+ \S+ +goal [\d,]+: (met|MISSED)$", out, re.MULTILINE)
    sent = re.search(r"^bytes +([\d,.]+)", out, re.MULTILINE)
    # The answers of three nodes, compressed.
    assert 500 < float(sent[1].replace(",", "")) < 20_000
