#!/usr/bin/env bash
# Applies FOLDER and waits until each of its Models is as its file says.
# Usage: deploy.sh FOLDER NAMESPACE [SECONDS]. Codes: 0, they are; 1, one failed, and why is said; 3, not in time.
set -euo pipefail
folder=${1:?name the folder with the Models} namespace=${2:?name the namespace} seconds=${3:-1800}
kubectl apply --server-side --namespace "$namespace" --recursive --filename "$folder"
kubectl get --namespace "$namespace" --recursive --filename "$folder" --output name |
  { grep '^model\.truekeep\.dev/' || true; } | while read -r model; do
  echo "waiting for $model"
  truekeep wait "${model/model.truekeep.dev/model}" --namespace "$namespace" --timeout "$seconds"
done
