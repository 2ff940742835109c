"""What replicas share, behind interfaces: streams that outlive a connection, and what limits count. The only door to
coredis and sqlite3."""
