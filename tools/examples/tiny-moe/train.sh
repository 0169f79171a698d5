#!/usr/bin/env bash
# Makes tiny-moe from nothing: world, tokenizer, random weights, training, scores on held-out questions.
#   tools/examples/tiny-moe/train.sh WORK [STEPS] [publish]     STATERA: the program
# 9000 steps, 16000, 12000 and STEPS, each run on texts of another seed with other shares (mixture.yaml, mixture-2.yaml, ...); the rate falls to nothing in each.
# publish: copies model, questions and card into examples/tiny-moe.
# PRECISION=medium: products of bf16 (AVX512_BF16 or AMX only), faster on Zen 4 and with AMX, slower on Xeons without.
# WORK keeps everything; what is there already is not made again, and an interrupted training goes on.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${1:?usage: train.sh WORK [STEPS] [publish]}
steps=${2:-4000}
publish=${3:-no}
[[ $publish = no || $publish = publish ]] || { echo "train.sh: $publish: expected publish" >&2; exit 1; }
python=${PYTHON:-python3}
statera=${STATERA:-$root/build/release/statera}

[ -e "$work/world/eval/brackets.jsonl" ] || "$python" "$root/tools/examples/text_world.py" --out "$work/world" --train 600000 --eval 300
[ -e "$work/base" ] || "$statera" tokenizer train "$work/world/train.jsonl" --out "$work/base" --vocab-size 896
cp "$here"/{config,generation_config}.json "$work/base/"
[ -e "$work/init" ] || "$statera" init "$work/base" --out "$work/init" --seed 1 --dtype fp32

train() {  # FROM TO DATA SEED STEPS RATE: the model TO, unless it is there
  [ -e "$work/$2/config.json" ] || "$statera" finetune "$work/$1" --out "$work/$2" --data "$work/$3/train.jsonl" \
    --eval-data "$work/world/validation.jsonl" --train-language --train-embeddings --max-steps "$5" \
    --batch 64 --lanes 2 --max-len 256 --lr "$6" --beta2 0.95 --warmup-ratio 0.02 --schedule cosine --weight-decay 0.05 --max-grad-norm 1 \
    --router-aux-loss-coef 0.001 --eval-every 1000 --save-every 1000 --seed "$4" --dtype fp32 --save-dtype bf16 --matmul-precision "${PRECISION:-highest}"
}

texts() {  # RUN COUNT: the conversations of a run, with its seed and its shares
  [ -e "$work/world-$1/validation.jsonl" ] ||
    "$python" "$root/tools/examples/text_world.py" --out "$work/world-$1" --train "$2" --eval 0 --seed "$1" --mixture "$here/mixture-$1.yaml"
}

train init first world 1 9000 2e-3
texts 2 800000
train first second world-2 2 16000 1.5e-3
texts 3 800000
train second third world-3 3 12000 1.5e-3
texts 4 260000
train third tiny-moe world-4 4 "$steps" 2e-3

cp "$here/tasks.json" "$work/world/eval/"
"$python" "$root/tools/examples/score.py" "$statera" "$work/tiny-moe" "$work/world/eval" "$work/scores"
[ "$publish" = no ] || "$python" "$root/tools/examples/publish.py" "$work" tiny-moe
