"""Resolves Service names: by call, as a resolver for aiohttp, and for other programs over DNS."""
