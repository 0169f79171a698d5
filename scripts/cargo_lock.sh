#!/usr/bin/env bash
# Writes rust/Cargo.lock (ignored by git) from rust/Cargo.lock.in, the same lock without its `source = ` lines: those hold the
# address of the registry that this machine uses. The address is learnt from a lock that cargo makes in a temporary folder.
# Quick and silent when Cargo.lock is already what Cargo.lock.in says.
#   scripts/cargo_lock.sh            make rust/Cargo.lock
#   scripts/cargo_lock.sh --update   the other way: Cargo.lock.in from a lock that cargo resolves anew (after editing Cargo.toml)
set -euo pipefail
rust="$(cd "$(dirname "$0")/../rust" && pwd)"
cargo="${CARGO:-cargo}"
strip_sources() { sed '/^source = /d' "$1"; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

if [ "${1:-}" = "--update" ]; then
  mkdir "$work/src" && : > "$work/src/lib.rs" && cp "$rust/Cargo.toml" "$work/"
  "$cargo" generate-lockfile --quiet --manifest-path "$work/Cargo.toml"
  strip_sources "$work/Cargo.lock" > "$rust/Cargo.lock.in"
fi

if [ -f "$rust/Cargo.lock" ] && strip_sources "$rust/Cargo.lock" | cmp -s - "$rust/Cargo.lock.in"; then
  [ "$rust/Cargo.lock" -nt "$rust/Cargo.lock.in" ] && [ "$rust/Cargo.lock" -nt "$rust/Cargo.toml" ] || touch "$rust/Cargo.lock"
  exit 0
fi

# A package of one small dependency: its lock names the registry.
mkdir -p "$work/probe/src" && : > "$work/probe/src/lib.rs"
cat > "$work/probe/Cargo.toml" <<'TOML'
[package]
name = "probe"
version = "0.0.0"
edition = "2021"
[dependencies]
libc = "0.2"
TOML
"$cargo" generate-lockfile --quiet --manifest-path "$work/probe/Cargo.toml"
source_line="$(grep -m1 '^source = ' "$work/probe/Cargo.lock")" || {
  echo "cargo_lock: cargo wrote no registry source; is a registry reachable?" >&2
  exit 1
}
# A package with a checksum comes from the registry; the source line stands between version and checksum.
awk -v line="$source_line" '/^checksum = /{print line} {print}' "$rust/Cargo.lock.in" > "$work/Cargo.lock"
mv "$work/Cargo.lock" "$rust/Cargo.lock"
