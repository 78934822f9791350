#!/usr/bin/env bash
# What a merge request has to pass: every file is as the API server wants it. No cluster is asked.
# Usage: validate.sh FOLDER. Codes: 0, all is well; 2, something is not.
set -euo pipefail
truekeep check --file "${1:?name the folder with the Models}"
