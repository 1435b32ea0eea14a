"""Tests of the model's values, and of reading them."""
