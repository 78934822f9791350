"""The operator against a real API server that misbehaves on demand.

A *plan* is one fault at one place of the whole story of a model: train, gate, serve, canary, drift, retrain, promote, a
bad revision, its rollback, and back by hand. The operator is a process of its own that reaches the API server through a
proxy (`proxy`), which numbers its writes and does to them what the plan says. Pods never run: their outcomes are
scripted (`kubelet`), and the operator's clock goes faster than the wall's (`clock`). After every chapter of the story
the objects have to be what they are after the same chapter undisturbed, and nothing may have been made twice.

`python -m tests.faults --help` runs plans, replays one by its number, and tries the suite on planted bugs."""
