"""Reads Services from YAML and JSON files.

files ──▶ texts ──▶ objects ──▶ state: unique names, cluster IPs, node ports ──▶ snapshot
"""

from .source import ManifestSource, load_state

__all__ = ["ManifestSource", "load_state"]
