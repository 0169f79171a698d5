# Sourced by setup.sh and build.sh: puts a cargo that is new enough first on PATH. cargo_path returns 1 when there is none.
cargo_minimum=1.80

cargo_path() {
  local found version
  for found in "$(type -P cargo || true)" "${HOME:-/nonexistent}/.cargo/bin/cargo" /usr/bin/cargo; do
    [ -n "$found" ] && [ -x "$found" ] || continue
    version=$("$found" --version 2>/dev/null | awk '{print $2}') || continue
    if [ -n "$version" ] && [ "$(printf '%s\n%s\n' "$cargo_minimum" "$version" | sort -V | head -n 1)" = "$cargo_minimum" ]; then
      PATH=$(dirname "$found"):$PATH
      export PATH
      return 0
    fi
  done
  return 1
}
