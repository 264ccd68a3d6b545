"""The four services' pure functions on a bus that reorders, duplicates and crashes."""
