"""Faults of UDP: datagrams, answers, and flows."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "answers-are-no-use": Mutant(
        "udp_flow",
        "            if now - self.used >= GRAIN_S:\n"
        "                listener.table.use(self, now)\n",
        "",
    ),
    "only-one-try-to-send": Mutant(
        "udp",
        "        for _ in range(2):\n",
        "        for _ in range(1):\n",
    ),
    "hops-not-counted": Mutant(
        "udp",
        "                set_hop_limit(sock, hops_left(flow.hop_limit) - 1)\n",
        "                set_hop_limit(sock, hops_left(flow.hop_limit))\n",
    ),
    "kept-hops-of-the-last": Mutant(
        "udp",
        "            if hop_limit != flow.hop_limit:\n"
        "                self._limit_hops(flow, hop_limit)\n",
        "",
    ),
    "answer-from-another-address": Mutant(
        "udp",
        "flow = UdpFlow(self, key, address, reply, hop_limit)",
        "flow = UdpFlow(self, key, address, self._flows and "
        "next(iter(self._flows.values())).ancillary or reply, hop_limit)",
    ),
    "stream-at-once": Mutant(
        "udp",
        "            if flow.first_byte_s is not None:\n"
        "                self.table.make_stream(flow, now)",
        "            if flow.sent_bytes >= 0:\n                self.table.make_stream(flow, now)",
    ),
    "never-a-stream": Mutant(
        "udp",
        "            if flow.first_byte_s is not None:\n"
        "                self.table.make_stream(flow, now)\n"
        "            elif",
        "            if",
    ),
    "refusal-ends-an-answered-flow-of-another": Mutant(
        "udp",
        "        self._flows.pop(flow.key, None)\n",
        "        self._flows.popitem()\n",
    ),
    "not-tried-again": Mutant(
        "udp",
        "        if not kept or self.engine.reactor.now - flow.sent_since > _KEEP_S:",
        "        if kept or self.engine.reactor.now - flow.sent_since > _KEEP_S:",
    ),
    "kept-too-long": Mutant(
        "udp_flow",
        "        self.kept = None\n        self.first_byte_s",
        "        self.first_byte_s",
    ),
    "flows-of-removed-endpoints-stay": Mutant(
        "udp",
        "            if flow.dialled_at <= begun_by:\n",
        "            if flow.dialled_at > begun_by:\n",
    ),
    "flows-of-the-other-side-end": Mutant(
        "udp",
        "            if flow.endpoint not in removed or serves(flow.client_ip, flow.endpoint):\n",
        "            if flow.endpoint not in removed:\n",
    ),
    "flows-end-though-begun-later": Mutant(
        "udp",
        "            if flow.dialled_at <= begun_by:\n",
        "            if begun_by:\n",
    ),
    "idle-end-twice-as-late": Mutant(
        "flow_table",
        "                if now - flow.used < idle_s:",
        "                if now - flow.used < 2 * idle_s:",
        package="policy",
    ),
    "streams-idle-as-young-ones": Mutant(
        "flow_table",
        "            (self._streams, self._stream_idle_s),\n        ):",
        "            (self._streams, self._young_idle_s),\n        ):",
        package="policy",
    ),
    "refused-udp-endpoint-not-ejected": Mutant(
        "udp",
        "        if endpoint is not None:\n"
        "            self._dial_failed(flow, endpoint, failed)\n"
        "        if not kept",
        "        if not kept",
    ),
    "wrong-flow-by-address": Mutant(
        "udp",
        "            key = (address, local.key)\n",
        "            key = (address[0], local.key)\n",
    ),
    "flow-of-any-address": Mutant(
        "udp",
        "            key = (address, local.key)\n",
        "            key = (address, 0)\n",
    ),
    "answer-read-once": Mutant(
        "udp_flow",
        "            left -= 1\n            try:\n                count",
        "            left = 0\n            try:\n                count",
    ),
    "resumed-without-the-kept": Mutant(
        "udp",
        "            room.served(flow, is_proven=False)\n        self._send_kept(flow, kept)\n",
        "            room.served(flow, is_proven=False)\n",
    ),
    "evicts-without-need": Mutant(
        "udp_flows",
        "        if not is_full and",
        "        if is_full and",
    ),
    "sent-bytes-not-counted": Mutant(
        "udp_flow",
        "                self.sent_bytes += count\n",
        "                self.sent_bytes += 1\n",
    ),
    "error-costs-an-answer": Mutant(
        "udp_flow",
        "                refusal = refusal_of(sock, exc.errno) or refusal\n"
        "                left = left or BATCH\n"
        "                continue\n",
        "                refusal = refusal_of(sock, exc.errno) or refusal\n                break\n",
    ),
    "refusal-of-udp-taken-for-one-clients": Mutant(
        "udp",
        "            may_be_client_specific=flow.is_preserved "
        "and failed.failure is not Failure.NO_HOST,\n",
        "            may_be_client_specific=True,\n",
    ),
}
