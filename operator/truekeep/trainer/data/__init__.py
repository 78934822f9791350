"""What a run reads, and what its rows have to be."""
