"""The training pod: read, validate, fit, judge, write. `run` is all of it; `__main__` is what the image starts."""
