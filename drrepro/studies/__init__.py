"""What a table is, and which runs it needs."""
