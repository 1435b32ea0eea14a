"""The watchers, which run beside the rounds: each follows and reports one aspect of the node."""
