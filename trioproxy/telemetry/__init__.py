"""What a request leaves behind: its exchange and its log line. The only door to structlog's output."""
