#!/usr/bin/env bash
# Trains a network on a machine with a GPU, such as a rented one, where this package is not installed: one of many styles,
# or one for super-resolution, by default the first step of ×4. Python must have torch, torchvision, tensorboard, rich,
# safetensors and Pillow there.
#
#   training/on_gpu.sh pack PHOTOS PAINTINGS LOSS_WEIGHTS    copies the training's input to gpu/
#   training/on_gpu.sh MINUTES [settings…]                   trains; settings as for perceptual train styles
#   training/on_gpu.sh super-resolution MINUTES [settings…]  the same for perceptual train super-resolution
#
# Copy the repository with gpu/ to that machine, and the files of $OUT (default gpu/out) back; weights and checkpoint are
# written there every minute, as such a machine may be taken away. Services that lend machines often limit what they copy:
# therefore photos are compressed until the input has 60 MiB, and the checkpoint is in parts of at most 15 MiB. To
# resume, put the files into gpu/out before the next call.
# A first, short run measures the speed, so that the learning rate reaches 0 at the end of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

pack() {
  mkdir -p gpu
  rm -rf gpu/paintings gpu/photos
  cp -r "$2" gpu/paintings
  cp "$3" gpu/loss_network.safetensors
  "$python" - "$1" gpu/photos <<'PY'
import sys
from pathlib import Path
from PIL import Image, ImageOps

photos, target = map(Path, sys.argv[1:])
files = sorted(file for file in photos.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})
room = 60 * 2**20 - sum(file.stat().st_size for file in target.parent.rglob("*") if file.is_file())
for quality in (90, 85, 80, 75, 70, 60, 50):
    size = 0
    for file in files:
        packed = target / file.relative_to(photos)  # the whole name, by which a photo belongs to a split
        packed.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            ImageOps.exif_transpose(image).convert("RGB").save(packed, "JPEG", quality=quality)
        size += packed.stat().st_size
    print(f"{len(files)} photos at quality {quality}: {size / 2**20:.0f} MiB", flush=True)
    if size <= room:
        break
else:
    sys.exit("the photos do not fit in 60 MiB; give fewer")
PY
}

train() {
  PYTHONPATH=$site "$python" -c 'import sys; from perceptual.commands import main; sys.exit(main())' train "${task[@]}" \
    --content-dir gpu/photos --loss-network vgg19 --loss-weights gpu/loss_network.safetensors --compile yes "$@"
}

# Copies the output. Each part gets its name only when all are complete, so that no incomplete part is fetched.
# Returns 1 if that fails, as on a full disk; what was copied before stays. (set -e has no effect where that is caught.)
hand_out() {
  [[ -e $run/checkpoint.pt ]] || return 0
  local new file
  rm -rf "$OUT"/.new.*
  new=$(mktemp -d "$OUT/.new.XXXX") && split -b 15M -d "$run/checkpoint.pt" "$new/checkpoint.pt." || return 1
  for file in "$run"/*.safetensors "$run/train.log" "$run/samples.png"; do
    [[ ! -e $file ]] || cp "$file" "$new" || return 1
  done
  mv -f "$new"/* "$OUT" && rmdir "$new"
}

[[ ${1:-} == pack && $# == 4 ]] && { pack "$2" "$3" "$4"; exit; }
if [[ ${1:-} == super-resolution ]]; then
  task=("$1" --recipe training/recipes/super_resolution_x4_pixel.toml)
  shift
else
  task=(styles --recipe training/recipes/styles.toml --style-dir gpu/paintings)
fi
[[ ${1:-} =~ ^[0-9]+$ ]] || { sed -n '2,/^set/{/^#/p}' "$0" | cut -c3-; exit 2; }
minutes=$1
shift
began=$SECONDS

OUT=$(realpath -m "${OUT:-gpu/out}")
site=$(mktemp -d)
run=$site/run
trap 'rm -rf "$site"' EXIT
mkdir -p "$OUT" "$run"
ln -s "$PWD/perceptual" "$site/perceptual"
for name in handlers models training; do ln -s "$PWD/$name" "$site/perceptual_$name"; done

resume=()
if compgen -G "gpu/out/checkpoint.pt.*" >/dev/null; then
  cat gpu/out/checkpoint.pt.* > "$run/checkpoint.pt"
  resume=(--resume)
fi

trial=$site/trial
train "$@" --iterations 60 --log-step 20 --save-step 1000 --sample-step 1000 --sample-path "$trial" \
  --model-path "$trial/trial.safetensors"
pace=$(grep -oP '[0-9.]+(?= images/s)' "$trial/train.log" | tail -1)
iterations=$("$python" - "$pace" $((60 * minutes - SECONDS + began)) "$run/checkpoint.pt" "$trial/checkpoint.pt" <<'PY'
import sys
import torch

pace, seconds, checkpoint, trial = float(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]
batch_size = torch.load(trial, map_location="cpu", weights_only=True)["settings"]["batch_size"]
try:
    done = torch.load(checkpoint, map_location="cpu", weights_only=True)["iteration"]
except FileNotFoundError:
    done = 0
print(done + max(1, int(0.9 * pace * seconds / batch_size)))  # a tenth is for samples, checkpoints and the end
PY
)
echo "$pace images/s: $iterations iterations in all"

(while sleep 60; do hand_out || echo "copying to $OUT failed; trying again in a minute" >&2; done) &
copier=$!
status=0
left=$((minutes - (SECONDS - began) / 60))
train "$@" "${resume[@]}" --iterations "$iterations" --minutes $((left > 1 ? left : 1)) \
  --save-step 200 --sample-path "$run" --model-path "$OUT/${task[0]}.safetensors" || status=$?
kill $copier || true
if ! hand_out; then
  trap - EXIT
  echo "copying to $OUT failed; checkpoint and weights are in $run" >&2
  exit 1
fi
exit $status
