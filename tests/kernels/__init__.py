"""Tries the product on the kernels that users run, each in a machine of its own."""
