"""How fast the server answers, beside the limit and its peers: `python -m tests.bench.serving`."""
