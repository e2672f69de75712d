#!/usr/bin/env bash
# Trains what is missing: every recipe that names a painting or a factor and has no weights yet, one after the other.
#   training/train_all.sh --content-dir PHOTOS [--minutes N] [--recipes DIR] [--models DIR] [--runs DIR] [option…]
# Interrupted or out of time, it goes on where it stopped when it is called again. Other options, such as
# --loss-weights FILE, go to every `perceptual train`. Exit status: 0 all there but what was left out for want of its
# painting, 1 some failed, 130 not finished.
set -euo pipefail

here=$(dirname "$0")
perceptual=$here/../.venv/bin/perceptual
[[ -x $perceptual ]] || perceptual=perceptual

recipes=$here/recipes models=networks runs=runs minutes= options=()
while (($#)); do
    case $1 in
        --recipes | --models | --runs | --minutes)
            (($# > 1)) || { echo "train_all.sh: $1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift
            ;;
        -h | --help) sed -n '2,6s/^# //p' "$0"; exit ;;
        *) options+=("$1") ;;
    esac
    shift
done
[[ $minutes =~ ^([0-9]+(\.[0-9]+)?)?$ ]] || { echo "train_all.sh: --minutes: expected a number, got '$minutes'" >&2; exit 2; }
[[ -d $recipes ]] || { echo "train_all.sh: there is no folder $recipes" >&2; exit 2; }

# Those that begin with the weights of another come after it.
mapfile -t ordered < <(grep -L '^initial-weights' "$recipes"/*.toml; grep -l '^initial-weights' "$recipes"/*.toml)

begun= failed=()
for recipe in "${ordered[@]}"; do
    name=$(basename "$recipe" .toml)
    if grep -q '^style-image' "$recipe"; then
        task=style
    elif grep -q '^upscale-factor' "$recipe"; then
        task=super-resolution
    else
        continue
    fi
    # A run that was stopped has weights too; the log of one that came to its end has a line such as "500/500  …".
    log=$runs/$name/train.log
    if [[ -e $models/$name.safetensors ]] && { [[ ! -e $log ]] || grep -q '^\([0-9]*\)/\1 ' "$log"; }; then
        echo "$name: is there"
        continue
    fi

    painting=$(sed -n 's/^style-image *= *["'"'"']\(.*\)["'"'"'].*/\1/p' "$recipe")
    [[ -z $painting || $painting == /* ]] || painting=$recipes/$painting
    if [[ $painting && ! -e $painting ]]; then
        echo "$name: left out, as there is no $painting; the recipe says where to get it"
        continue
    fi

    arguments=(train "$task" --recipe "$recipe" --name "$name")
    arguments+=(--model-path "$models/$name.safetensors" --sample-path "$runs/$name")
    initial=$(sed -n 's/^initial-weights *= *["'"'"']\(.*\)["'"'"'].*/\1/p' "$recipe")
    initial=$models/$(basename "$initial" .safetensors).safetensors
    [[ -f $initial ]] && arguments+=(--initial-weights "$initial")  # just trained, rather than one that ships
    [[ -e $runs/$name/checkpoint.pt ]] && arguments+=(--resume)
    if [[ $minutes ]]; then
        left=$(awk "BEGIN { left = $minutes - $SECONDS / 60; print (left > 0 ? left : 0) }")
        if [[ $left == 0 && $begun ]]; then
            echo "$name: no time left; call again to go on"
            exit 130
        fi
        arguments+=(--minutes "$left")
    fi

    echo "$name: training"
    begun=1
    status=0
    "$perceptual" "${arguments[@]}" "${options[@]}" || status=$?
    case $status in
        0) ;;
        130)
            echo "$name: not finished; call again to go on"
            exit 130
            ;;
        *) failed+=("$name") ;;
    esac
done

if ((${#failed[@]})); then
    echo "train_all.sh: failed: ${failed[*]}" >&2
    exit 1
fi
