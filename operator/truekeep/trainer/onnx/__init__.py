"""Fitted pipelines, translated."""
