#!/usr/bin/env bash
# Sets up, builds the release program and shows the main job on the bundled example: inspect a checkpoint, ask about a picture,
# quantize to 4 bits, ask again, compare sizes, speeds and logits. Works in a temporary folder that is removed at the end
# (--keep shows it and leaves it). Any checkpoint folder can take the example's place: scripts/demo.sh [--keep] [MODEL].
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
keep=no
model=examples/tiny-qwen3-vl
for option in "$@"; do
  case $option in
    --keep) keep=yes ;;
    -h | --help) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "demo: unknown option $option (there is --keep)" >&2; exit 1 ;;
    *) model=$(realpath "$option") ;;
  esac
done

title() { printf '\n== %s\n' "$*"; }
# Shows the command as a user would type it, then runs it.
statera() {
  printf '$ statera'
  printf ' %q' "$@"
  printf '\n'
  "$root/build/release/statera" "$@"
}
# Bytes of the weights of a checkpoint.
weight_bytes() { stat -L -c %s "$1"/*.safetensors | awk '{ n += $1 } END { print n }'; }

steps() {
  local work=$1 picture question="What is in this picture?" before after start
  picture=$(find examples/pictures -name '*.jpg' | sort | head -n 1)

  title "What the checkpoint holds"
  statera inspect "$model"

  title "A question about $picture"
  statera chat "$model" --image "$picture" --prompt "$question" --max-new-tokens 32 --temperature 0 --stats

  title "Quantize to 4 bits, groups of 128, block by block"
  start=$EPOCHREALTIME
  statera quantize "$model" --out "$work/w4" --method rtn --w-bits 4 --w-group 128
  awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "took %.2f s\n", b - a }'

  title "The same question to the quantized checkpoint"
  statera chat "$work/w4" --image "$picture" --prompt "$question" --max-new-tokens 32 --temperature 0 --stats

  title "Size and difference"
  before=$(weight_bytes "$model")
  after=$(weight_bytes "$work/w4")
  awk -v a="$before" -v b="$after" 'BEGIN { printf "weights: %d -> %d bytes (%.2f of the original)\n", a, b, b / a }'
  statera compare "$model" "$work/w4"
}

"$root/scripts/setup.sh"
"$root/scripts/build.sh" release statera
work=$(mktemp -d "${TMPDIR:-/tmp}/statera_demo_XXXXXX")
if [ "$keep" = yes ]; then
  echo "demo: working in $work"
else
  trap 'rm -rf "$work"' EXIT
fi
cd "$root"
steps "$work"
title "Done"
