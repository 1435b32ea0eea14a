"""Worker processes: they carry the traffic, without privileges; one process commands them.

WorkerPool (control process) ──Channel, SCM_RIGHTS──▶ Worker ── DataPlane
"""

from .pool import WorkerPool, default_workers

__all__ = ["WorkerPool", "default_workers"]
