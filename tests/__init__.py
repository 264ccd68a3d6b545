"""All tests; those that need servers start them themselves."""
