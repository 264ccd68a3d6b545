"""Intake: reports come in here; it keeps the register (台账), timeline and directory."""
