#!/usr/bin/env bash
# Configures (when needed) and builds one preset: scripts/build.sh PRESET [NINJA_ARGUMENTS...]. Used by test.sh and demo.sh;
# sets nothing up. Jobs: STATERA_JOBS, default one per core. Quiet unless something fails or is built.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
preset=${1:?usage: scripts/build.sh PRESET [NINJA_ARGUMENTS...]}
shift
jobs=${STATERA_JOBS:-$(nproc)}
folder=$root/build/$preset
. "$root/scripts/cargo_path.sh"
cargo_path || { echo "build: no cargo >= $cargo_minimum: run scripts/setup.sh" >&2; exit 1; }
cd "$root"

if [ ! -f "$folder/build.ninja" ]; then
  mkdir -p "$folder"
  echo "build: configuring preset $preset in build/$preset"
  if ! cmake --preset "$preset" >"$folder/configure.log" 2>&1; then
    grep -A 2 -E '^CMake Error' "$folder/configure.log" >&2 || tail -n 5 "$folder/configure.log" >&2
    echo "build: configuring preset $preset failed (whole output: build/$preset/configure.log)" >&2
    exit 1
  fi
fi
export NINJA_STATUS="[%f/%t %es] "
ninja -C "$folder" -j "$jobs" "$@" || { echo "build: preset $preset failed" >&2; exit 1; }
