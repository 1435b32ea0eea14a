"""Resolves names of Services for programs, and host names through this node's DNS servers."""
