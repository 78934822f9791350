"""Pure builders: one of our objects, as a child's manifest, or None where nothing is wanted.

A builder a file. What all pods share is in `pods`, `mounts` and `amounts`; what all objects share is in `metadata`.
"""
