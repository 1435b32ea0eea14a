"""Serves what the agent of an older version answered, in its place, as if that were now.

    older_agent.py FILE        127.0.0.1:10249, with any query, as unknown parts are ignored

Runs in a pod, whose command line holds this text: it imports nothing of ours.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DAY_S = 86_400.0


def as_of_now(value: Any, shift_s: float, recorded: float) -> Any:
    """Return the JSON value with all Unix times moved."""
    if isinstance(value, dict):
        return {name: as_of_now(one, shift_s, recorded) for name, one in value.items()}
    if isinstance(value, list):
        return [as_of_now(one, shift_s, recorded) for one in value]
    is_time = isinstance(value, float) and abs(value - recorded) < DAY_S
    return value + shift_s if is_time else value


def answer() -> bytes:
    """Return the answer at this moment."""
    status = json.loads(Path(sys.argv[1]).read_bytes())
    return json.dumps(as_of_now(status, time.time() - status["now"], status["now"])).encode()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer; a watch gets one line, and no end."""
        path, _, query = self.path.partition("?")
        found = path == "/api/v1/status"
        body = answer() if found else b"404: Not Found"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json" if found else "text/plain")
        if "watch" in query:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body + b"\n" if "watch" in query else body)
        if "watch" in query:
            self.rfile.read()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 10249), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server.serve_forever()
