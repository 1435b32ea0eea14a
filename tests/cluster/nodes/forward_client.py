"""A client of `forward` in the world, which reads requests, sends them, and prints the results.

stdin:   {"dns": [IP, PORT], "name": NAME}       ──▶ [IP, PORT], from SRV and A records
         {"at": [IP, PORT], "count": N}          ──▶ N answers, each a pod's name or an error
         {"at": [IP, PORT], "get": PATH}         ──▶ the body, or an error
"""

from __future__ import annotations

import http.client
import json
import sys
from typing import Any

DEADLINE_S = 120.0


def main() -> None:
    """Answer each line of standard input with a line on standard output."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201


def answer(wanted: dict[str, Any]) -> object:
    if "dns" in wanted:
        ip, port = wanted["dns"]
        return look_up(ip, port, wanted["name"])
    ip, port = wanted["at"]
    if "get" in wanted:
        return get(ip, port, wanted["get"])
    return [get(ip, port, "/hostname") for _ in range(wanted["count"])]


def look_up(server: str, port: int, name: str) -> tuple[str, int]:
    """Return the address of a Service's port ``http`` from the DNS server."""
    from dns.resolver import Resolver

    resolver = Resolver(configure=False)
    resolver.nameservers, resolver.port = [server], port
    (at,) = resolver.resolve(f"_http._tcp.{name}", "SRV")
    (address,) = resolver.resolve(name, "A")
    return str(address), at.port


def get(ip: str, port: int, path: str) -> str:
    """Return the body of a response, or ``error: …``; each request uses a new connection."""
    connection = http.client.HTTPConnection(ip, port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as exc:
        return f"error: {exc!r}"
    finally:
        connection.close()


if __name__ == "__main__":
    main()
