"""Decisions that are a table or a state machine. PURE: no I/O, no clock."""
