"""One request's life between the two sides: the relay, the pump that reads the origin, the shaper that writes."""
