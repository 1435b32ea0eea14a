"""Shows all nodes of a cluster in one view, and serves its Services on a user's loopback.

``cli`` contains the commands that this package adds to ``userspace-proxy``, ``nodes`` reads all
agents, and ``forward`` reaches pods through the API server. None of this code runs on a node.
"""
