#!/usr/bin/env bash
# All measurements that need a GPU; the minutes beside the parts are estimates for an H100.
#
#   DATA=FOLDER OUT=gpu_results bash benchmarks/gpu.sh                              all parts, about an hour
#   PARTS="kernels inference" bash benchmarks/gpu.sh                                some parts; these need no data
#   DEVICE=cpu ROUNDS=1 SHAPES=1x19x64x96 MODELS=b0 LARGE_MODELS=b0 SIZES=64x96 LARGE_SIZES=64x128 BATCH=2 \
#     AGAINST=eager STEPS=8 EPOCHS=1 LIMIT=4 WORKERS=1 DATA=... bash benchmarks/gpu.sh   a trial on a CPU
#
# DATA contains tiny_imagenet, cityscapes256 and camvid11. The output of each part is kept in OUT. When a part is
# started again, pretraining and training resume where they stopped, and measurements replace the earlier ones. A part
# that fails is named at the end and does not stop the others. Most of the time of inference is spent on compiling;
# AGAINST=eager skips it.
set -uo pipefail
PYTHON=${PYTHON:-python}
NO_DATA="set it to the folder that contains tiny_imagenet, cityscapes256, camvid11"
OUT=${OUT:-gpu_results}
MEASURED="kernels attention inference inference_batch inference_large steps"
TRAINED="tiny pretrain cityscapes cityscapes_random cityscapes_pretrained camvid_random camvid_pretrained"
PARTS=${PARTS:-tests $MEASURED $TRAINED}
DEVICE=${DEVICE:-cuda}
ROUNDS=${ROUNDS:-20}
WEIGHTS=${WEIGHTS:-$OUT/weights}  # folder of the models of inference; those that are missing are trained
SHAPES=${SHAPES:-1x150x512x512 16x150x512x512 1x19x1024x2048 8x19x1024x1024}
MODELS=${MODELS:-b0 b2}
SIZES=${SIZES:-512x512}
BATCH=${BATCH:-16}
LARGE_MODELS=${LARGE_MODELS:-b0 b5}
LARGE_SIZES=${LARGE_SIZES:-1024x2048}
AGAINST=${AGAINST:-all}
STEPS=${STEPS:-6000}
EPOCHS=${EPOCHS:-30}
LIMIT=${LIMIT:-500}
WORKERS=${WORKERS:-12}
FAILED=()
mkdir -p "$OUT"

segformer() {  # COMMAND RECIPE NAME ...: a run in OUT/NAME, resumed if it exists
    local command=$1 recipe=$2 run=$OUT/$3
    shift 3
    local resume=()
    [ -e "$run/recipe.json" ] && resume=(--resume)
    "$PYTHON" -m segformer "$command" "$recipe" --run-dir "$run" --device "$DEVICE" "${resume[@]}" "$@"
}

inference() {  # MODELS SIZES ...: add rows to OUT/inference_DEVICE.json
    local models=$1 sizes=$2
    shift 2
    "$PYTHON" -m benchmarks.inference --models $models --sizes $sizes --against $AGAINST --device "$DEVICE" \
        --rounds "$ROUNDS" --weights "$WEIGHTS" --extend --out "$OUT/inference_$DEVICE.json" "$@"
}

finetune() {  # RECIPE DATA NAME [START]
    local start=()
    [ $# -gt 3 ] && start=(--train.init-from "$4")
    segformer train "$1" "$3" --data "$2" --train.steps "$STEPS" --train.eval-every $((STEPS / 4)) \
        --train.batch-size 16 --train.precision bf16 --train.workers "$WORKERS" "${start[@]}"
}

run_part() {
    case $1 in
    tests) "$PYTHON" -m pytest -m gpu -q ;;                                                        # 1 min
    kernels) "$PYTHON" -m benchmarks.kernels --shapes $SHAPES --dtypes fp32 bf16 fp16 --rounds "$ROUNDS" \
        --device "$DEVICE" --out "$OUT/kernels_$DEVICE.json" ;;                                    # 1 min
    attention) "$PYTHON" -m benchmarks.attention --models $MODELS --sizes $SIZES $LARGE_SIZES --rounds "$ROUNDS" \
        --dtypes fp32 bf16 fp16 --device "$DEVICE" --out "$OUT/attention_$DEVICE.json" ;;          # 1 min
    inference) inference "$MODELS" "$SIZES" ;;                                                     # 10 min
    inference_batch) inference "$MODELS" "$SIZES" --batch "$BATCH" --no-memory ;;                  # 8 min
    inference_large) inference "$LARGE_MODELS" "$LARGE_SIZES" --classes 19 --no-memory ;;          # 10 min
    steps) "$PYTHON" -m benchmarks.training --models b0 b2 --batch 16 --rounds 20 --device "$DEVICE" \
        --precision bf16 --out "$OUT/training.json" ;;                                             # 3 min
    tiny) "$PYTHON" -m benchmarks.tiny_imagenet "${DATA:?$NO_DATA}/tiny_imagenet" "$OUT/data/tiny" \
        --limit "$LIMIT" ;;                                                                        # 1 min
    pretrain) segformer pretrain tiny_imagenet_b0 pretrained --data "$OUT/data/tiny" \
        --epochs "$EPOCHS" --workers "$WORKERS" ;;                                                 # 12 min
    cityscapes) "$PYTHON" -m benchmarks.cityscapes256 "${DATA:?$NO_DATA}/cityscapes256" \
        "$OUT/data/cityscapes" ;;                                                                  # 1 min
    cityscapes_random) finetune benchmarks/cityscapes256_b0.json "cityscapes=$OUT/data/cityscapes" "$1" ;;  # 3 min
    cityscapes_pretrained) finetune benchmarks/cityscapes256_b0.json "cityscapes=$OUT/data/cityscapes" "$1" \
        "$OUT/pretrained/best" ;;                                                                  # 3 min
    camvid_random) finetune camvid_b0 "${DATA:?$NO_DATA}/camvid11" "$1" ;;                       # 3 min
    camvid_pretrained) finetune camvid_b0 "${DATA:?$NO_DATA}/camvid11" "$1" \
        "$OUT/pretrained/best" ;;                                                                  # 3 min
    *) echo "unknown part '$1'" && return 2 ;;
    esac
}

for name in $PARTS; do
    echo "== $name"
    run_part "$name" 2>&1 | tee -a "$OUT/$name.log" || FAILED+=("$name")
done
grep -H "^mIoU\|^top-1" "$OUT"/*.log || true
[ ${#FAILED[@]} -eq 0 ] || { echo "failed: ${FAILED[*]}"; exit 1; }
