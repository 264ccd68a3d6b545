"""Malformed inputs for the front door: made from valid events, sent through both doors."""
