"""The command ``forward``: a cluster's Services on this machine, through port-forward."""
