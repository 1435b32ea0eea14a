"""What a worker process runs; its argument is the descriptor of its channel."""

from __future__ import annotations

import sys

from .worker import run_worker

if __name__ == "__main__":
    sys.exit(run_worker(int(sys.argv[1])))
