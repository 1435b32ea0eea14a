"""Mutants of what a worker does when another one finds that an endpoint is back, and of replies.

See ``mutant_table``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant

_plane = partial(Mutant, package="plane")
_dataplane = partial(Mutant, package="dataplane")

MUTANTS: Mapping[str, Mutant] = {
    "return-elsewhere-ends-the-ejection-only": _plane(
        "worker",
        "            group.outcomes.answered_elsewhere(message.endpoint, "
        "self._dataplane.engine.clock())\n",
        "            group.balancers.current.answered(message.endpoint)\n",
    ),
    "older-dial-ejects-what-has-returned": _dataplane(
        "outcomes", "        self._failed.returned_at[endpoint] = now\n", ""
    ),
    "return-elsewhere-wakes-no-client": _dataplane(
        "outcomes",
        "        if self._balancers.current.answered(endpoint):\n"
        "            self._note_return(endpoint, now)\n\n",
        "        if self._balancers.current.answered(endpoint):\n"
        "            self._failed.returned_at[endpoint] = now\n"
        "            self._balancers.restart(endpoint, now)\n\n",
    ),
    "return-elsewhere-has-all-of-its-share": _dataplane(
        "outcomes",
        "        if self._balancers.current.answered(endpoint):\n"
        "            self._note_return(endpoint, now)\n\n",
        "        if self._balancers.current.answered(endpoint):\n"
        "            self._failed.returned_at[endpoint] = now\n"
        "            self._on_back()\n\n",
    ),
    "drain-ends-before-replies": _plane(
        "worker", "if not len(dataplane.flows) or", "if not len(dataplane.connections) or"
    ),
    "drain-closes-listeners-of-udp-at-once": _plane(
        "worker",
        "            if isinstance(listener, UdpListener):\n"
        "                listener.stop_receiving()",
        "            if listener is None:\n                listener.stop_receiving()",
    ),
    "drain-has-half-the-time-for-replies": _plane(
        "worker",
        "        dataplane.engine.loop.call_later(replies_s, self._end_drain, rest_s)",
        "        dataplane.engine.loop.call_later(replies_s / 2, self._end_drain, rest_s)",
    ),
    "each-silence-is-over-after-a-return": _dataplane(
        "outcomes",
        "failed.returned_at.get(endpoint, moment) > moment",
        "failed.returned_at.get(endpoint, moment) != moment",
    ),
}
