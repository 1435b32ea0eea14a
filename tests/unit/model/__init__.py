"""The nouns, and reading them."""
