"""`python -m truekeep.cli` is `truekeep`."""

from truekeep.cli.main import app

app()
