"""What replicas share, behind interfaces: streams that outlive a connection. The only door to coredis."""
