"""Runs a child process that answers each message with a message; all calls block.

Workers, which run an event loop and also send messages unprompted, are in ``plane.worker_process``.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import IO

from .child import end_child, start_child
from .errors import UserspaceProxyError
from .frames import receive_frame, send_frame

_END_WITHIN_S = 10.0


class ChildEnded(UserspaceProxyError):
    """The child exited or hung before it answered; the text is like ``ended with status 1``."""


class AnsweringChild:
    """A child process that Ctrl-C doesn't reach; for arguments and errors see ``start_child``.

    Args:
        answer_within_s: Seconds after which a child without an answer is killed.
    """

    def __init__(
        self,
        entry: str,
        *arguments: int,
        answer_within_s: float,
        prefix: Sequence[str] = (),
        stderr: IO[bytes] | None = None,
    ) -> None:
        self._answer_within_s = answer_within_s
        self._process, self._link = start_child(
            entry, *arguments, prefix=prefix, stderr=stderr, has_own_session=True
        )
        self._link.settimeout(answer_within_s)
        self.pid = self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._link.fileno() < 0

    def ask(self, message: bytes | None) -> tuple[bytes, list[socket.socket]]:
        """Send a message; return the answer and its sockets, which the caller closes.

        An exception in this thread, such as KeyboardInterrupt, closes the link.

        Args:
            message: None to send nothing, and to wait for the message that the child sends first.

        Raises:
            ChildEnded: The child exited or hung without an answer.
        """
        try:
            if message is not None:
                # Read even if sending fails: the child may have sent a reason before it ended.
                with contextlib.suppress(ConnectionError):
                    send_frame(self._link, message)
            return receive_frame(self._link)
        except TimeoutError as exc:
            self._process.kill()
            raise ChildEnded(f"gave no answer within {self._answer_within_s:g} s") from exc
        except (EOFError, OSError) as exc:
            status = end_child(self._process, _END_WITHIN_S)
            raise ChildEnded(f"ended with status {status}") from exc
        except BaseException:
            # Close the link: after Ctrl-C, the next call might receive the late answer.
            self._link.close()
            raise

    def close(self) -> int:
        """Close the link, which ends the child; return its exit status. Idempotent."""
        self._link.close()
        return end_child(self._process, _END_WITHIN_S)
