"""Tests with a real kube-apiserver and etcd, and modules that build and run these programs."""
