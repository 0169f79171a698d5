#!/usr/bin/env bash
# Makes tiny-vlm from nothing: world, tokenizer, random weights, training, scores on held-out questions.
#   tools/examples/tiny-vlm/train.sh WORK [STEPS] [publish]     PYTHON: a python3 with Pillow; STATERA: the program
# publish: copies model, questions and card into examples/tiny-vlm.
# WORK keeps everything; what is there already is not made again, and an interrupted training goes on.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${1:?usage: train.sh WORK [STEPS] [publish]}
steps=${2:-20000}
publish=${3:-no}
[[ $publish = no || $publish = publish ]] || { echo "train.sh: $publish: expected publish" >&2; exit 1; }
python=${PYTHON:-python3}
statera=${STATERA:-$root/build/release/statera}

[ -e "$work/world/eval/box.hard.jsonl" ] || "$python" "$root/tools/examples/vlm_world.py" --out "$work/world" --train 120000 --eval 150
[ -e "$work/base" ] || "$statera" tokenizer train "$work/world/train.jsonl" --out "$work/base" --vocab-size 1024
cp "$here"/{config,generation_config,preprocessor_config,video_preprocessor_config}.json "$work/base/"
[ -e "$work/init" ] || "$statera" init "$work/base" --out "$work/init" --seed 1 --dtype fp32

# Grids told whole come first: started on questions, the model kept to the commonest answers (README.md).
[ -e "$work/grids/config.json" ] || "$statera" finetune "$work/init" --out "$work/grids" --data "$work/world/grids.jsonl" \
  --train-vision --train-merger --train-language --train-embeddings --max-steps 1500 --batch 32 --lanes 2 --max-len 512 \
  --lr 1.5e-3 --beta2 0.95 --warmup-steps 50 --schedule constant --weight-decay 0.05 --max-grad-norm 1 --save-every 500 --seed 1

[ -e "$work/tiny-vlm/config.json" ] || "$statera" finetune "$work/grids" --out "$work/tiny-vlm" --data "$work/world/train.jsonl" \
  --eval-data "$work/world/validation.jsonl" --train-vision --train-merger --train-language --train-embeddings --max-steps "$steps" \
  --batch 32 --lanes 2 --max-len 512 --lr 1e-3 --beta2 0.95 --warmup-ratio 0.02 --schedule cosine --weight-decay 0.05 --max-grad-norm 1 \
  --eval-every 1000 --save-every 500 --seed 1 --save-dtype bf16

cp "$here/tasks.json" "$work/world/eval/"
"$python" "$root/tools/examples/score.py" "$statera" "$work/tiny-vlm" "$work/world/eval" "$work/scores"
[ "$publish" = no ] || "$python" "$root/tools/examples/publish.py" "$work" tiny-vlm
