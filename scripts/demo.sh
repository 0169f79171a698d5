#!/usr/bin/env bash
# Sets up, builds the release program and shows the main job on a bundled example. Works in a temporary folder that is removed at the end
# (--keep shows it and leaves it). Any checkpoint folder can take the example's place: scripts/demo.sh [--keep] [MODEL [EVAL CALIBRATION]].
#   MODEL alone: inspect it, ask about a picture, quantize to 4 bits, ask again, compare sizes, speeds and logits.
#   EVAL (questions and their tasks.json) and CALIBRATION (items for --data) make it the story of a trained model: it answers questions about pictures,
#   gets the outlier channels of large models, which change none of its logits, is quantized by rtn and by mbq to 4 and 3 bits, and a table says
#   what each of them lost. The report of the last one lies in build/demo afterwards.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
keep=no
given=(examples/tiny-vlm examples/tiny-vlm/eval examples/tiny-vlm/calibration.jsonl)
words=()
for option in "$@"; do
  case $option in
    --keep) keep=yes ;;
    -h | --help) sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "demo: unknown option $option (there is --keep)" >&2; exit 1 ;;
    *) words+=("$(realpath "$option")") ;;
  esac
done
[ ${#words[@]} -eq 0 ] || given=("${words[@]}")
[ ${#given[@]} -eq 1 ] || [ ${#given[@]} -eq 3 ] || { echo "demo: MODEL, or MODEL EVAL CALIBRATION" >&2; exit 1; }
model=${given[0]}

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

# One picture, one quantization.
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

# A trained model: questions, four quantizations, a table.
story() {
  local work=$1 eval=$2 calibration=$3 per_file=40 picture question answer bits

  title "What the checkpoint holds"
  statera inspect "$model"

  title "Questions about pictures it has never seen"
  python3 -B "$root/tools/examples/ask.py" "$eval" "$work/pictures" > "$work/questions"
  while IFS=$'\t' read -r picture question answer; do
    statera chat "$model" --image "$picture" --prompt "$question" --max-new-tokens 96 --temperature 0 < /dev/null
    printf '  (right: %s)\n' "$answer"
  done < "$work/questions"

  title "Outlier channels, as large models have them and small ones do not: 24 of 192 in each place, 256 times as large"
  python3 -B "$root/tools/outliers/inject.py" "$model" "$work/outliers" --factor 256 --channels 24 --program "$root/build/release/statera" | tail -n 1

  title "Quantize: round to nearest, and scales balanced between pictures and answers (mbq)"
  for bits in 4 3; do
    statera quantize "$work/outliers" --out "$work/rtn-w$bits" --method rtn --w-bits "$bits" --w-group 32 --asym
    statera quantize "$work/outliers" --out "$work/mbq-w$bits" --method mbq --w-bits "$bits" --w-group 32 --asym --data "$calibration"
  done

  title "What they lost: the first $per_file questions of each task"
  python3 -B "$root/tools/examples/versus.py" "$root/build/release/statera" "$eval" "$work/scores" --limit "$per_file" --only '^[^.]*(\.clean)?$' \
    "bf16=$model" "rtn-w4=$work/rtn-w4" "mbq-w4=$work/mbq-w4" "rtn-w3=$work/rtn-w3" "mbq-w3=$work/mbq-w3"

  mkdir -p build/demo
  cp "$work/mbq-w3/report.html" build/demo/
  title "What calibration saw and chose: $root/build/demo/report.html"
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
if [ ${#given[@]} -eq 3 ]; then story "$work" "${given[1]}" "${given[2]}"; else steps "$work"; fi
title "Done"
