"""Huashi 化事: the services that a county runs its grid coordination on."""
