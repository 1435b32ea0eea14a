"""What runs on people's machines: a cluster's nodes in one view, and its Services on loopback.

``cli`` has the commands that this package adds to ``userspace-proxy``, ``nodes`` the reader of all
agents, and ``forward`` the way to pods through the API server. Nothing of it runs on a node.
"""
