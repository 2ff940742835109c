"""The whole house on memory streams and a mock clock: a scripted origin, clients, counters, and the cut sweep."""
