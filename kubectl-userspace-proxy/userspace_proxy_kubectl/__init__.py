"""Commands for users' machines: all nodes of a cluster in one view, its Services on loopback.

``cli`` contains the commands that this package adds to ``userspace-proxy``, ``nodes`` reads all
agents, and ``forward`` reaches pods through the API server. None of this code runs on a node.
"""
