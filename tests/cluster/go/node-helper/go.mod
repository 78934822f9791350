module truekeep.dev/tests/cluster/node-helper

go 1.24.0
