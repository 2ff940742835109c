"""The admin address: what an operator asks and orders. Run by the supervisor, which asks every worker and merges."""
