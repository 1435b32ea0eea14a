from tests.unit.cli.conftest import clean_logging, serve_view

__all__ = ["clean_logging", "serve_view"]
