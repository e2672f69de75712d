#!/usr/bin/env bash
# Builds model_store/NAME.mar for the given networks (from networks/ or shipped), by default for all that ship. Archives
# that are up to date are skipped.
#   ./build_mar.sh [NAME…]
set -euo pipefail
cd "$(dirname "$0")"

perceptual=.venv/bin/perceptual
[[ -x $perceptual ]] || perceptual=perceptual

exec "$perceptual" package --model-store model_store -- "$@"
