"""PURE: bytes to events and back. No I/O, no clock, no logging, no trio."""
