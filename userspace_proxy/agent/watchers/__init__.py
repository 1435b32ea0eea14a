"""What runs beside the rounds: each module follows one thing of the node, and reports it."""
