"""The only Kubernetes I/O of the operator. Every call has a timeout, every error is one of `errors`.

`api` speaks HTTP to the API server, `kinds` says which objects there are, `views` turns what it says into the domain's
values, `observe` gathers all that decides about one object, `write` carries out, `lease` keeps standbys apart, and
`metrics` asks the serving pods what they counted.
"""
