"""Pieces of ours on real servers."""
