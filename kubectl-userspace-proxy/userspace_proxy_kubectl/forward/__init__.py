"""The command ``forward``: the Services of a cluster on this machine, through port-forward."""
