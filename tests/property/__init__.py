"""What must hold for anything that hypothesis can make."""
