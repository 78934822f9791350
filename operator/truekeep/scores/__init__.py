"""How good a model is on rows, said the same way by its gates and by the monitor.

`metrics` are those that gates name, `intervals` say how sure they are, `calibration` says what they probably are before
labels come. Imports numpy only.
"""
