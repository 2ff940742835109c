"""What an operator types. The only place that prints and sets exit codes."""
