"""Kubernetes manifests, and the credentials that an operator makes for them once."""
