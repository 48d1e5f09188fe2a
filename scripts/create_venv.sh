#!/usr/bin/env bash
# Creates a virtual environment in $1, with the first Python that is new enough.
set -euo pipefail

venv=$1

# An environment that works is kept, whoever made it.
if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  exit 0
fi

# The versions that the project is tested with come first. Running each is the
# only sure test: a version manager's shim exists for Pythons that it lacks.
for python in python3.11 python3.12 python3.13 python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    >/dev/null 2>&1; then
    echo "[setup] creating $venv with $("$python" --version)"
    if ! "$python" -m venv "$venv"; then
      rm -rf "$venv"
      echo "error: '$python -m venv' failed. On Debian and Ubuntu, install the" \
        "package python3-venv." >&2
      exit 1
    fi
    exit 0
  fi
done
echo "error: Python 3.11 or newer is needed; found" \
  "$(python3 --version 2>/dev/null || echo 'no python3'). Install it, or name" \
  "one that has the requirements: make PYTHON=/path/to/python ..." >&2
exit 1
