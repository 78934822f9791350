"""Pages for people that are one file each: no script, nothing loaded, and every text in them escaped.

`skeleton` makes the document and its parts from plain text. Imports the standard library only.
"""
