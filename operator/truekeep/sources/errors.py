"""What is wrong with a source as a whole, so that no row of it can be judged. A second try can't help.

```
SourceInvalid
├── OutOfMemory   there are more rows than memory; a MemoryError too
├── TooLarge      an object beyond the limit, or more objects than are listed
└── Changed       an object is not the one that was pinned
```
"""

# ruff: noqa: N818  the names say what happened

from __future__ import annotations


class SourceInvalid(Exception):
    """The text names the place, what is wrong, the limit where there is one, and a remedy."""


class TooLarge(SourceInvalid):
    """There is more than can be read."""


class OutOfMemory(SourceInvalid, MemoryError):
    """Reading on would take the memory that putting rows together and fitting need."""


class Changed(SourceInvalid):
    """What lies there is not what was pinned."""
