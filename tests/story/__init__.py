"""The story of one model, from its YAML to its rollback, on the real cluster.

`python -m tests.story` tells it to a newcomer; `tests/e2e/test_story.py` runs the same steps as assertions.
"""
