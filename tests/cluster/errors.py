"""The one error that the tool shows to people."""

from __future__ import annotations


class ClusterError(Exception):
    """Something that keeps the cluster from going on, as one line: what is missing and what helps."""
