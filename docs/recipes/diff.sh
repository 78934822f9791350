#!/usr/bin/env bash
# What applying FOLDER would change in the cluster, for a merge request's reviewer.
# Usage: diff.sh FOLDER NAMESPACE. Codes: 0, nothing; 1, something, it is shown; more, it could not be told.
set -euo pipefail
kubectl diff --server-side --namespace "${2:?name the namespace}" --recursive --filename "${1:?name the folder}"
