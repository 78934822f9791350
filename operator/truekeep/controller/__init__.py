"""Level-triggered reconciling: a deduplicating queue of keys, and for each kind: observe, decide, carry out.

What a reconcile does depends on what is there, never on the event that woke it; the second one writes nothing.
"""
