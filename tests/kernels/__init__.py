"""Tests the product on the kernels that users run, each in its own virtual machine."""
