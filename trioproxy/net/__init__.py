"""TCP as trio streams: the only door to sockets. Knows no HTTP. Used by `server` (clients) and `upstream` (origins)."""
