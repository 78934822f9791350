"""Comparing what a model sees in production with what it was trained on.

`judge` is the pure core: a reference profile, a window's profile and settings in, a report out. `look` is one run of
the monitor: it finds the windows that are closed and not judged yet, counts their captures, judges, and stores.
"""
