"""Sends an example's events through the served model in time order, faster than the clock; the lake grows along."""
