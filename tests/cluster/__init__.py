"""Tests with a real kube-apiserver and etcd, and the modules that build and run these."""
