"""Where a team's rows lie, read the same way by whoever needs them: training, and the monitor for labels.

`columns` says what a raw column becomes, `read` reads every file below a prefix, `join` puts rows together by key and
as of a time. Imports numpy and pyarrow only.
"""
