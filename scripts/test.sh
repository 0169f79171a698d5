#!/usr/bin/env bash
# Sets up, builds the dev preset and runs every test; ctest's summary comes last. Arguments go to ctest: scripts/test.sh -L lint.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=${STATERA_JOBS:-$(nproc)}
"$root/scripts/setup.sh"
STATERA_JOBS=$jobs "$root/scripts/build.sh" dev
exec ctest --test-dir "$root/build/dev" --output-on-failure --no-tests=error -j "$jobs" "$@"
