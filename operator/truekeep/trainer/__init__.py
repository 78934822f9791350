"""The training pod: read, validate, fit, judge, write. `run` is the whole of it; `__main__` is what the image starts."""
