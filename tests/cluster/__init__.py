"""Tests against a real kube-apiserver and etcd, and the parts that build and run these."""
