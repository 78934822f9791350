"""Truekeep keeps the models a team has in production true."""

__version__ = "0.1.0"
