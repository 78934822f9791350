// Nothing is built from it: its files, the definitions of the Gateway API's kinds, are copied.
module truekeep.dev/tests/cluster/gateway-api

go 1.24.0

require sigs.k8s.io/gateway-api v1.4.1
