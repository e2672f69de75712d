#!/usr/bin/env bash
# Builds model_store/NAME.mar of every network named, in networks/ or one that ships, or else of all that ship, where
# anything changed.
#   ./build_mar.sh [NAME…]
set -euo pipefail
cd "$(dirname "$0")"

perceptual=.venv/bin/perceptual
[[ -x $perceptual ]] || perceptual=perceptual

exec "$perceptual" package --model-store model_store -- "$@"
