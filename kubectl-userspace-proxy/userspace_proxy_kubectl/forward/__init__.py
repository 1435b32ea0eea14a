"""Serves a cluster's Services on this machine, through the API server's port-forward."""
