"""What is kept of a run: the record, and what lies beside it."""
