"""How services talk and keep state. Imports ``grid``; imported by every service."""
