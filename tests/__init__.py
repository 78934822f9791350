"""All that proves Truekeep."""

import os

# The stores of the tests listen on the loopback, which a pod of ours would refuse; processes inherit it.
os.environ.setdefault("TRUEKEEP_LOOPBACK_STORES", "Allowed")
