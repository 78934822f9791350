"""What a model eats: one encoding of features, and one rule for which model files may be loaded.

Trainer, server and monitor share this room, so that a row gets the same numbers everywhere:
`encode` turns columns into the float64 matrix that a pipeline takes, in bulk (pyarrow) or for one request (dicts);
`trust` says which types a skops file of an allow-listed estimator may hold, and loads nothing else.
Imports numpy and pyarrow; scikit-learn and skops only in `trust`, and only when something is loaded.
"""
