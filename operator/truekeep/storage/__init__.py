"""The object store, for what runs in the images and the CLI; the operator never imports it.

`s3` reads and writes objects below a prefix, `artifacts` whole artifacts by digest. Errors:

```
StoreError                    the store did not do what was asked; a second try may help
├── StoreUnreachable          no answer, or an answer that says "later"
├── StoreDenied               credentials are missing, wrong, or may not do this
├── ObjectMissing             there is no such object
└── ObjectTooLarge            it has more bytes than the reader allows
ArtifactInvalid               what lies there is not the artifact that its digest names; a second try can't help
```
"""

from truekeep.storage.errors import (
    ArtifactInvalid,
    ObjectMissing,
    ObjectTooLarge,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)

__all__ = ["ArtifactInvalid", "ObjectMissing", "ObjectTooLarge", "StoreDenied", "StoreError", "StoreUnreachable"]
