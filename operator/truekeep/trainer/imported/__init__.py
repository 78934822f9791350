"""Models that were trained elsewhere."""
