"""Endpoints to probe, for tests that finish the probes themselves."""


class Probed:
    """PathProbes that only record the endpoints to probe."""

    def __init__(self, note):
        self.note = note
        self.wanted = []
        self.begun = 0
        self.is_closed = False

    @property
    def endpoints(self):
        """Each wanted endpoint, listed once."""
        return list(dict.fromkeys(endpoint for endpoint, _ in self.wanted))

    def add(self, endpoint, service):
        self.wanted.append((endpoint, str(service)))
        self.begun += 1

    def discard(self, endpoint, service):
        self.wanted.remove((endpoint, str(service)))

    def close(self):
        self.is_closed = True
