#!/usr/bin/env bash
# Prepares a Debian 12 machine (root or sudo) for building: Debian packages, cargo, and the Python environment .venv that
# carries LibTorch and Arrow. Idempotent: a second run checks, says nothing and takes under a second. `--fuzz` adds clang 16 (14 has no
# std::source_location) for the asan preset and its fuzzers, `--tidy` clang-tidy and clang-format.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
packages=(ca-certificates ccache ninja-build cmake pkg-config g++
  nlohmann-json3-dev libyaml-cpp-dev libcli11-dev libfmt-dev libspdlog-dev
  libcpp-httplib-dev libssl-dev libcurl4-openssl-dev libvips-dev
  libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libzstd-dev
  libgtest-dev libbenchmark-dev python3 python3-venv)
# The Debian interpreter, whatever python3 comes first on PATH (pyenv, conda): python3-venv belongs to this one.
python=${STATERA_PYTHON:-/usr/bin/python3}
log=""
. "$root/scripts/cargo_path.sh"

fail() { echo "setup: $*" >&2; exit 1; }
say() { echo "setup: $*"; }

# Runs a command with its output in a log; on failure shows the last telling line only.
quietly() {
  local what=$1; shift
  log=$(mktemp "${TMPDIR:-/tmp}/statera_setup_XXXXXX.log")
  if ! "$@" >"$log" 2>&1; then
    local reason
    reason=$(grep -iE '^(E:|error|fatal)' "$log" | tail -n 1) || true
    fail "$what failed: ${reason:-$(tail -n 1 "$log")} (whole output: $log)"
  fi
  rm -f "$log"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

install_packages() {
  local installed missing=() name
  # dpkg-query fails when it knows one of the names not at all; the list it prints is right all the same.
  installed=" $({ dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' "${packages[@]}" 2>/dev/null || true; } | sed -n 's/^[ih]i //p' | tr '\n' ' ') "
  for name in "${packages[@]}"; do
    [[ $installed == *" $name "* ]] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || fail "needs root or sudo to install: ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  quietly "apt-get update" as_root apt-get -qq -o DPkg::Lock::Timeout=300 update
  quietly "apt-get install" as_root apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends "${missing[@]}"
}

# One environment, one interpreter; the stamp names the requirements and the interpreter it was made with.
make_environment() {
  local venv=$root/.venv wanted
  [ -x "$python" ] || fail "$python not found (set STATERA_PYTHON to a python3 that has the venv module)"
  wanted=$({ cat "$root/scripts/requirements.txt"; readlink -f "$python"; } | sha256sum | cut -d ' ' -f 1)
  if [ -f "$venv/.statera_stamp" ] && [ "$(cat "$venv/.statera_stamp")" = "$wanted" ] && [ -x "$venv/bin/python" ]; then
    return 0
  fi
  if [ ! -x "$venv/bin/python" ] || [ "$(readlink -f "$venv/bin/python")" != "$(readlink -f "$python")" ]; then
    say "making the Python environment .venv"
    quietly "$python -m venv" "$python" -m venv --clear "$venv"
  fi
  say "installing $(grep -vcE '^ *(#|$)' "$root/scripts/requirements.txt") pinned wheels into .venv (LibTorch, Arrow; once)"
  quietly "pip install" "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps -r "$root/scripts/requirements.txt"
  echo "$wanted" >"$venv/.statera_stamp"
}

for option in "$@"; do
  case $option in
    --fuzz) packages+=(clang-16 libclang-rt-16-dev) ;;
    --tidy) packages+=(clang-tidy-16 clang-format) ;;
    -h | --help) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown option $option (there are --fuzz and --tidy)" ;;
  esac
done
command -v dpkg-query >/dev/null || fail "needs Debian 12 (no dpkg here)"
if ! cargo_path; then
  packages+=(rustc-web cargo-web)
fi
install_packages
cargo_path || fail "no cargo >= $cargo_minimum on PATH after installing cargo-web"
make_environment
if [ -f "$root/scripts/cargo_lock.sh" ]; then
  bash "$root/scripts/cargo_lock.sh" || fail "scripts/cargo_lock.sh failed (its message is above)"
fi
