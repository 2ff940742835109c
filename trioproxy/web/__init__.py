"""Quart-Trio: what comes in over HTTP, route by route. The only door to quart."""
