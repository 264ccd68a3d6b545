"""What other programs rely on."""
