"""Tests the product on users' kernels, each in its own virtual machine."""
