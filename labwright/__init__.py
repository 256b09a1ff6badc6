"""Labwright: local multi-node Kubernetes labs, described by one file and proved by tests."""

__version__ = "0.1.0"
