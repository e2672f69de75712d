#!/usr/bin/env bash
# Builds model_store/NAME.mar from models/NAME.safetensors, of every NAME given or else of all, where anything changed.
#   ./build_mar.sh [NAME…]
set -euo pipefail
cd "$(dirname "$0")"

perceptual=.venv/bin/perceptual
[[ -x $perceptual ]] || perceptual=perceptual

weights=()
for name in "$@"; do weights+=("models/$name.safetensors"); done
(($#)) || weights=(models/*.safetensors)

exec "$perceptual" package --model-store model_store "${weights[@]}"
