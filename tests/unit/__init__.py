"""One piece at a time, in memory."""
