"""The container images: one Dockerfile each, and the tool that builds, loads and measures them (`python -m images`)."""
