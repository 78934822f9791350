"""Pipelines that are built and fitted here."""
