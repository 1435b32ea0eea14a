"""Contains the watchers, which run beside the rounds; each reports one aspect of the node."""
