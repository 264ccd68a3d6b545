"""Notify: tells people and systems what the profile says they are told."""
