"""What a call to the cluster can end with.

```
ClusterError
├── Unavailable     no answer, a timeout, 429, 5xx: the same call later may succeed
├── Conflict        the object changed meanwhile (409): look again, then decide again
├── NotFound        404
├── AlreadyExists   409 to a create
├── Terminating     the namespace goes: nothing can be made in it, and nothing needs to be
├── Refused         400, 403, 422: the API server, a quota or an admission policy says no
├── NameTaken       an object of this name is not ours
└── NotLeader       the Lease is lost or not held: nothing may be written
```
"""

# ruff: noqa: N818 - the names say what happened, as in httpx
from __future__ import annotations


class ClusterError(Exception):
    """A call to the cluster failed; the text says which, and why."""


class Unavailable(ClusterError):
    """The API server did not answer, or asked to come back later."""


class Conflict(ClusterError):
    """The object changed since it was read."""


class NotFound(ClusterError):
    """There is no such object."""


class AlreadyExists(ClusterError):
    """There is such an object already."""


class Terminating(ClusterError):
    """The namespace is being deleted."""


class Refused(ClusterError):
    """The API server will not do this, now or later, unless something is changed."""


class NameTaken(ClusterError):
    """An object of this name exists and belongs to somebody else."""


class NotLeader(ClusterError):
    """This process may not write: another one leads, or might by now."""
