from tests.unit.cli.conftest import serve_view
from tests.unit.conftest import clean_logging

__all__ = ["clean_logging", "serve_view"]
