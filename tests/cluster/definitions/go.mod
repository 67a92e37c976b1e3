// Definitions of the Prometheus Operator's objects, which are files of its module: nothing is built of it.
module postern.dev/tests/cluster/definitions

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
