"""The one error that the tool shows to people."""

from __future__ import annotations


class ImagesError(Exception):
    """Something that keeps an image from being built or loaded, as one line: what, and what helps."""
