from tests.unit.conftest import api, client, nothing_of_this_machine

__all__ = ["api", "client", "nothing_of_this_machine"]
