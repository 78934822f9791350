"""Metrics, gates, and the comparison with what serves."""
