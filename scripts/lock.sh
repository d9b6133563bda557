#!/usr/bin/env bash
# Writes requirements.lock from a fresh environment: the newest versions that pyproject.toml allows and pip can resolve.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
"${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/pip" install --quiet "setuptools>=77" wheel ".[dev]"
{
  echo "# Exact versions of everything that setup installs. Made by scripts/lock.sh; do not edit."
  "$environment/bin/pip" freeze --all --exclude distil --exclude pip |
    sed -E '/^(nvidia|cuda|triton)/ s/$/ ; platform_system == "Linux" and platform_machine == "x86_64"/'
} > requirements.lock
