"""The model's values, and reading them."""
