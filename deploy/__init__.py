"""How Huashi is run: the local stack, containers and Kubernetes manifests."""
