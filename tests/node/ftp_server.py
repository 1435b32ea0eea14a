"""A small FTP server in passive mode (RFC 959), as a program for a pod: NAME PORT FIRST LAST.

A stored file is visible only to the control connection that stored it; RETR ``name`` returns the
server's name.
"""

import socket
import sys
import threading


def serve(control: socket.socket, name: str, ports: "Ports") -> None:
    """Serve one session."""
    lines = control.makefile("rwb")
    data: socket.socket | None = None
    stored = b""

    def say(text: str) -> None:
        lines.write(f"{text}\r\n".encode())
        lines.flush()

    say(f"220 {name}")
    for line in lines:
        verb, _, argument = line.decode().strip().partition(" ")
        if verb in ("USER", "PASS"):
            say("230 logged in")
        elif verb in ("TYPE", "NOOP", "CWD"):
            say("200 done")
        elif verb == "EPSV":
            data = ports.listen(control.family)
            say(f"229 passive (|||{data.getsockname()[1]}|)")
        elif verb in ("RETR", "STOR") and data is not None:
            say("150 opening")
            with data, data.accept()[0] as transfer:
                if verb == "STOR":
                    stored = b"".join(iter(lambda: transfer.recv(65536), b""))
                else:
                    transfer.sendall(name.encode() if argument == "name" else stored)
            data = None
            say("226 complete")
        elif verb == "QUIT":
            say("221 bye")
            break
        else:
            say("502 not implemented")
    lines.close()
    control.close()


class Ports:
    """The passive ports, each used by one session at a time."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._count, self._next = first, last - first + 1, 0
        self._lock = threading.Lock()

    def listen(self, family: int) -> socket.socket:
        for _ in range(self._count):
            with self._lock:
                port, self._next = self._first + self._next % self._count, self._next + 1
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("", port))
            except OSError:
                sock.close()
                continue
            sock.listen(1)
            return sock
        raise OSError("no passive port is free")


def main(name: str, port: int, first: int, last: int) -> None:
    """Serve until killed."""
    ports = Ports(first, last)
    with socket.create_server(("", port), backlog=256) as listening:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            accepted, _ = listening.accept()
            threading.Thread(target=serve, args=(accepted, name, ports), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
