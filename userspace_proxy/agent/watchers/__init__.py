"""The watchers, which run beside the rounds: each follows one aspect of the node and reports it."""
