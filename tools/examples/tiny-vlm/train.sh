#!/usr/bin/env bash
# Makes tiny-vlm from nothing: world, tokenizer, random weights, training, scores on held-out questions.
#   tools/examples/tiny-vlm/train.sh WORK [PARTS] [publish]     PYTHON: a python3 with Pillow; STATERA: the program
# Runs of 2500 steps, one behind the other, in four stages, each on a world of another seed with other shares (mixture.yaml, mixture-2.yaml, ...): five runs
# on 120000 pictures, three on 240000, four on 320000, PARTS (at least 1) on 320000. The rate is constant but in the last run of each stage, where it
# falls to nothing. The model is what lies at four fifths of the way from the third stage's to the fourth's.
# publish: copies model, questions and card into examples/tiny-vlm.
# PRECISION=medium: products of bf16 (AVX512_BF16 or AMX only), 1.1 to 1.4 times as fast on Zen 4 and with AMX, slower on Xeons without.
# WORK keeps everything; what is there already is not made again, and an interrupted training goes on.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${1:?usage: train.sh WORK [PARTS] [publish]}
parts=${2:-3}
publish=${3:-no}
[[ $publish = no || $publish = publish ]] || { echo "train.sh: $publish: expected publish" >&2; exit 1; }
[[ $parts =~ ^[1-9][0-9]*$ ]] || { echo "train.sh: $parts: expected a number of parts, at least 1" >&2; exit 1; }
python=${PYTHON:-python3}
statera=${STATERA:-$root/build/release/statera}

[ -e "$work/world/eval/box.hard.jsonl" ] || "$python" "$root/tools/examples/vlm_world.py" --out "$work/world" --train 120000 --eval 150
[ -e "$work/base" ] || "$statera" tokenizer train "$work/world/train.jsonl" --out "$work/base" --vocab-size 1024
cp "$here"/{config,generation_config,preprocessor_config,video_preprocessor_config}.json "$work/base/"
[ -e "$work/init" ] || "$statera" init "$work/base" --out "$work/init" --seed 1 --dtype fp32

train() {  # FROM TO DATA SEED OPTION...: every part of the model, from the model FROM to the model TO, unless it is there
  local from=$1 to=$2 data=$3 seed=$4
  shift 4
  [ -e "$work/$to/config.json" ] || "$statera" finetune "$work/$from" --out "$work/$to" --data "$work/$data" \
    --train-vision --train-merger --train-language --train-embeddings --batch 32 --lanes 2 --max-len 512 --beta2 0.95 --weight-decay 0.05 \
    --max-grad-norm 1 --dtype fp32 --save-every 500 --seed "$seed" --matmul-precision "${PRECISION:-highest}" "$@"
}

part() {  # FROM TO NUMBER DATA OPTION...
  local from=$1 to=$2 number=$3 data=$4
  shift 4
  train "$from" "$to" "$data/train.jsonl" "$number" --eval-data "$work/world/validation.jsonl" --eval-every 500 --max-steps 2500 --lr 1e-3 "$@"
}
stage() {  # FROM TO DATA FIRST LAST: the runs of the numbers FIRST to LAST
  local from=$1 to=$2 data=$3 first=$4 last=$5 i
  for ((i = first; i < last; ++i)); do
    part "$from" "part-$i" $i "$data" --warmup-steps 50 --schedule constant
    from=part-$i
  done
  part "$from" "$to" "$last" "$data" --schedule cosine --save-dtype bf16
}

pictures() {  # STAGE COUNT: a world of training pictures, with the seed and the shares of that stage
  [ -e "$work/world-$1/validation.jsonl" ] ||
    "$python" "$root/tools/examples/vlm_world.py" --out "$work/world-$1" --train "$2" --eval 0 --seed "$1" --mixture "$here/mixture-$1.yaml"
}

# Grids told whole come first: started on questions, the model kept to the commonest answers (README.md).
train init grids world/grids.jsonl 1 --max-steps 1500 --lr 1.5e-3 --warmup-steps 50 --schedule constant
stage grids first world 1 5
pictures 2 240000
stage first second world-2 6 8
pictures 3 320000
stage second third world-3 9 12
pictures 4 320000
stage third fourth world-4 13 $((12 + parts))
[ -e "$work/tiny-vlm/config.json" ] || "$python" "$root/tools/examples/average.py" "$work/third" "$work/fourth" "$work/tiny-vlm" --share 0.8

cp "$here/tasks.json" "$work/world/eval/"
"$python" "$root/tools/examples/score.py" "$statera" "$work/tiny-vlm" "$work/world/eval" "$work/scores"
[ "$publish" = no ] || "$python" "$root/tools/examples/publish.py" "$work" tiny-vlm
