"""The way to the origins: connections, the transport, one try at one endpoint. The only door to httpx and httptools."""
