"""The table of mutants of the control half that concern what workers know of each other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant

_plane = partial(Mutant, package="plane")
_dataplane = partial(Mutant, package="dataplane")

MUTANTS: Mapping[str, Mutant] = {
    "return-not-passed-on": _plane(
        "plane",
        "        self._send_all(message, but=worker)\n",
        "        if isinstance(message, Ejected):\n"
        "            self._send_all(message, but=worker)\n",
    ),
    "ejection-not-passed-on": _plane(
        "plane",
        "        self._send_all(message, but=worker)\n",
        "        if isinstance(message, Returned):\n"
        "            self._send_all(message, but=worker)\n",
    ),
    "ejection-sent-back-only": _plane(
        "plane",
        "        self._send_all(message, but=worker)\n",
        "        self._send(worker, message)\n",
    ),
    "ejection-not-obeyed": _plane(
        "worker",
        "            Ejected: self._eject,\n",
        "            Ejected: lambda _message: None,\n",
    ),
    "return-not-obeyed": _plane(
        "worker",
        "            Returned: self._end_ejection,\n",
        "            Returned: lambda _message: None,\n",
    ),
    "ejection-not-reported": _plane(
        "worker", "        self._send(Ejected(self._number, endpoint, is_silent))", "        pass"
    ),
    "return-not-reported": _plane(
        "worker", "        self._send(Returned(self._number, endpoint))", "        pass"
    ),
    "ejection-without-silence": _plane(
        "worker",
        "now, is_silent=message.is_silent)",
        "now)",
    ),
    "ejection-of-another-group": _plane(
        "worker",
        "        self._send(Ejected(self._number, endpoint, is_silent))",
        "        self._send(Ejected(self._number + 1, endpoint, is_silent))",
    ),
    "return-elsewhere-ignored": _dataplane(
        "outcomes",
        "        if self._balancers.current.answered(endpoint):\n"
        "            self._note_return(endpoint, now)\n\n",
        "\n",
    ),
    "prolonged-ejection-is-no-news": Mutant(
        "ejection",
        "        self._put_out(endpoint, known.until)\n        return True\n",
        "        self._put_out(endpoint, known.until)\n        return False\n",
        package="balance",
    ),
    "figures-of-an-endpoint-lost": _plane(
        "group", "            counters.add(each.figures)\n", "            pass\n"
    ),
}
