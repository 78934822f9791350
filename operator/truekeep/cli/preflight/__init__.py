"""`truekeep preflight`: what a cluster lacks for Truekeep, and what to do about it."""
