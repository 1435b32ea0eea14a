"""Writes to the API server from the node on which it runs, and watches, as the agent does.

To separate the API server's time from the agent's, it reports not only when a request was sent, but
also when the watch of a plain client delivered the change.
"""

from __future__ import annotations

import http.client
import json
import queue
import random
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .churning import Change, Churn
from .command_process import serve
from .objects import make_specs
from .prober import pause

MERGE = "application/merge-patch+json"
JSON = "application/json"
THREADS = 24
WATCH_S = 3600
EVENT_S = 5.0
SILENCE_S = 60.0


class Api:
    """One connection to the API server.

    Args:
        address: Host and port.
        ca: The CA file of its certificate.
        token: The admin's token.
        silence_s: The timeout for reading.
    """

    def __init__(self, address: str, ca: str, token: str, silence_s: float) -> None:
        host, _, port = address.rpartition(":")
        self._context = ssl.create_default_context(cafile=ca)
        self._connection = http.client.HTTPSConnection(
            host, int(port), timeout=silence_s, context=self._context
        )
        self._token = token

    def ask(self, method: str, path: str, body: Any = None, kind: str = JSON) -> bytes:
        """Send a request and return the body; a rejection raises OSError with its message."""
        said, status = self.open(method, path, body, kind)
        text = said.read()
        if status >= 300:
            raise OSError(f"{method} {path}: {status} {text[:300].decode()}")
        return text

    def open(
        self, method: str, path: str, body: Any = None, kind: str = JSON
    ) -> tuple[http.client.HTTPResponse, int]:
        """Send a request; return the response, whose body is unread, and its status."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        text = body if isinstance(body, str | None) else json.dumps(body)
        self._connection.request(method, path, text, headers)
        answer = self._connection.getresponse()
        return answer, answer.status


class Writer:
    """The commands of this helper.

    Args:
        words: The arguments of an ``Api``.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._address, self._ca, self._token = words
        self._api = self._connect()
        self._events: queue.SimpleQueue[tuple[float, str, str]] = queue.SimpleQueue()

    def _connect(self, silence_s: float = SILENCE_S) -> Api:
        return Api(self._address, self._ca, self._token, silence_s)

    def fill(self, requests: str) -> dict[str, float]:
        """Send a file's requests (lines of path, tab, body), many at a time; return the seconds."""
        began = time.monotonic()
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        for line in Path(requests).read_text().splitlines():
            lines.put(line)
        problems: list[str] = []

        def work() -> None:
            api = self._connect()
            while not problems:
                try:
                    path, _, body = lines.get_nowait().partition("\t")
                except queue.Empty:
                    return
                try:
                    api.ask("POST", path, body)
                except (OSError, http.client.HTTPException) as exc:
                    problems.append(str(exc))

        run_all([threading.Thread(target=work) for _ in range(THREADS)])
        if problems:
            raise OSError(problems[0])
        return {"seconds": time.monotonic() - began}

    def watch(self, path: str) -> dict[str, str]:
        """Start a watch of a collection, which ``write`` requires."""
        sign = "&" if "?" in path else "?"
        listed = json.loads(self._api.ask("GET", f"{path}{sign}limit=1"))
        version = listed["metadata"]["resourceVersion"]
        stream, status = self._connect(WATCH_S).open(
            "GET", f"{path}{sign}watch=1&resourceVersion={version}&timeoutSeconds={WATCH_S}"
        )
        if status != http.HTTPStatus.OK:
            raise OSError(f"cannot watch {path}: {status}")

        def read() -> None:
            while line := stream.readline():
                now = time.monotonic()
                event = json.loads(line)
                self._events.put((now, event["type"], event["object"]["metadata"]["name"]))

        threading.Thread(target=read, daemon=True).start()
        return {}

    def write(
        self, method: str, path: str, name: str, body: Any = None, watched: bool = True
    ) -> dict[str, float]:
        """Write one object.

        Returns:
            The times at which the request was ``sent`` and ``answered``, and the watch delivered
            the ``event``; unless ``watched``, the event's time is the answer's.
        """
        while not self._events.empty():
            self._events.get()
        sent = time.monotonic()
        self._api.ask(method, path, body, MERGE if method == "PATCH" else JSON)
        answered = time.monotonic()
        event = answered
        if watched:
            while True:
                event, _, of = self._events.get(timeout=EVENT_S)
                if of == name:
                    break
        return {"sent": sent, "answered": answered, "event": event}

    def churn(self, seconds: float, rate: int, count: int, seed: int) -> dict[str, Any]:
        """Make changes at a steady rate, then restore the Services; return rates and durations."""
        specs = make_specs(count)[: count * 9 // 10]
        plan = Churn(specs, 2 * count, random.Random(seed))
        jobs: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        took: list[float] = []
        problems: list[str] = []

        def work() -> None:
            api = self._connect()
            while job := jobs.get():
                began = time.monotonic()
                try:
                    _send(api, job)
                except (OSError, http.client.HTTPException) as exc:
                    problems.append(str(exc))
                took.append(time.monotonic() - began)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        late = 0.0
        for number, change in enumerate(plan.changes(round(seconds * rate))):
            due = began + number / rate
            while (left := due - time.monotonic()) > 0:
                pause(left)
            late = max(late, -left)
            jobs.put(change)
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join()
        ended = time.monotonic()
        for change in plan.restoring_changes():
            _send(self._api, change)
        took.sort()
        return {
            "rate": len(took) / (ended - began),
            "failed": len(problems),
            "problem": problems[0] if problems else "",
            "write_p50": took[len(took) // 2],
            "write_p99": took[len(took) * 99 // 100],
            "late_max": late,
        }


def _send(api: Api, change: Change) -> None:
    method, path, body = change
    api.ask(method, path, body, MERGE if method == "PATCH" else JSON)


def run_all(threads: Sequence[threading.Thread]) -> None:
    """Start all threads, and wait until they end."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Run commands until standard input ends; the arguments are an ``Api``'s."""
    writer = Writer(sys.argv[1:])
    serve(
        {
            "fill": writer.fill,
            "watch": writer.watch,
            "write": writer.write,
            "churn": writer.churn,
        }
    )


if __name__ == "__main__":
    main()
