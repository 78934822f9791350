"""The model server: one revision, answering the Open Inference Protocol V2 over HTTP (`python -m truekeep.server`).

`load` fetches the artifact by digest, refuses whatever differs, and tests it on the examples that training recorded;
`protocol` turns bodies into columns and answers into bodies, `identity` reads event times and keys; `scoring` runs the
pipeline, together for what arrived together; `capture` keeps what was asked and answered, in the object store;
`connections` gives every connection deadlines, a bounded age and a graceful end; `limits` says what is too much;
`metrics` and `logs` tell what happened; `app` is the ASGI application that ties them, `process` its life from start to
SIGTERM.
"""
