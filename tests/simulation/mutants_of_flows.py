"""Mutants of UDP flows, and of what workers count for all clients: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "resumed-flow-is-idle-since-its-start": Mutant(
        "udp",
        "        self.table.use(flow, flow.sent_since)\n        if room is not None",
        "        if room is not None",
    ),
    "descriptor-of-a-refused-flow-is-lost": Mutant(
        "udp",
        "        self.engine.descriptors.give_for_flow()\n        flow.sock = None",
        "        if makes_room:\n            self.engine.descriptors.give_for_flow()\n"
        "        flow.sock = None",
    ),
    "answered-pairs-stay": Mutant(
        "udp",
        "            if flow.has_answer:\n                client_dialer.answered_flows.remove",
        "            if flow.has_answer and not flow.is_ended:\n"
        "                client_dialer.answered_flows.remove",
    ),
    "answered-flow-is-sent-again": Mutant(
        "udp_flow",
        "        self.kept = None\n        self.first_byte_s",
        "        self.first_byte_s",
    ),
    "held-datagrams-have-the-first-hop-limit": Mutant(
        "udp",
        "        flow.hop_limit = hop_limit\n        if flow.sock is not None:\n",
        "        if flow.sock is not None:\n            flow.hop_limit = hop_limit\n",
    ),
    "flow-has-no-dialled-address": Mutant(
        "udp", "key = (address, local.key)", 'key = (address, b"")'
    ),
    "refusal-of-a-clients-address-ejects": Mutant(
        "udp",
        "may_be_client_specific=flow.is_preserved and failed.failure is not Failure.NO_HOST",
        "may_be_client_specific=False",
    ),
    "pins-of-flows-are-of-client-ports": Mutant(
        "udp",
        "                flow.address[0], now, tried",
        "                str(flow.address), now, tried",
    ),
    "flows-never-use-client-addresses": Mutant(
        "udp", "endpoint, now, may_preserve=may_preserve", "endpoint, now, may_preserve=False"
    ),
}
