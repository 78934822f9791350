"""Attacks on the product, each tried against its guard, and again without it: an attack that fails either way proves
nothing. `python -m tests.unit.redteam` prints the table of classes, cases and escapes."""
