"""Whole stacks on real servers: given, fast-forward, expect."""
