"""The watchers, which run beside the rounds: each watches and reports one aspect of the node."""
