"""Trials of a search, and the choice among them."""
