#!/usr/bin/env bash
# Reproduce the study of GAIT-prop: train its networks, write the table and the figures.
#
#   scripts/reproduce/gaitprop.sh [--scale smoke|small|paper] [--data-dir DIR]
#                                 [--out DIR] [--seeds N] [--only PATTERN]
#
# Without --data-dir the embedded 8x8 digits stand in for the published data sets.
# An experiment that is finished under --out is not trained again; one that was killed
# is resumed. PATTERN is a shell pattern of experiment names, such as 'sq4-*'.
set -euo pipefail

scale=paper data_dir='' out=runs/reproduce-gaitprop seeds=5 only='*'
python=${PYTHON:-python}
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --scale | --data-dir | --out | --seeds | --only)
      (($# > 1)) || { echo "error: $1: got no value" >&2; exit 2; } ;;&
    --scale) scale=$2; shift 2 ;;
    --data-dir) data_dir=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --seeds) seeds=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    *) echo "error: option: got '$1', expected one that --help lists" >&2; exit 2 ;;
  esac
done

names=()
if [[ -n $data_dir ]]; then
  for data in '' -kmnist -fmnist; do
    for rule in bp gait tp; do
      names+=("sq4-$rule$data" "tower-$rule$data" "sq4-$rule-linear$data")
    done
  done
  for hidden in 1 2 3; do
    for rule in bp gait tp; do names+=("depth-$hidden-$rule"); done
  done
  names+=(sq4-gait-noreg itp init-glorot gamma-sweep grid roundoff)
else
  for rule in bp gait tp; do
    names+=("digits-h1-$rule" "digits-h4-$rule" "digits-h8-$rule")
    names+=("digits-h4-$rule-linear" "digits-tower-$rule")
  done
  names+=(digits-h4-noreg)
fi

train() { # a run that diverges (status 1) is told of in the table; the others go on
  "$python" -m scripts.train "$@" || (($? == 1))
}

mkdir -p "$out"
for name in "${names[@]}"; do
  # shellcheck disable=SC2053  # a pattern is wanted on the right
  [[ $name == $only ]] || continue
  begun=$(find "$out" -path "*/$name/*/config.json" -not -path '*/members/*' | sort | tail -n 1)
  run=${begun%/config.json}
  if [[ -n $run && -e $run/summary.json ]]; then
    echo "$name: finished, $run"
  elif [[ -n $run ]]; then
    train --resume "$run"
  else
    members=$seeds
    # A sweep has members enough, and the arithmetic of one seed is that of all.
    case $name in grid | gamma-sweep | roundoff) members=1 ;; esac
    options=(--scale "$scale" --out "$out" --seeds "$members")
    [[ -z $data_dir ]] || options+=(--data-dir "$data_dir")
    train gaitprop "$name" "${options[@]}"
  fi
done

"$python" -m scripts.report "$out" | tee "$out/table.md"

draw() { # draw FOLDER PATTERN FIGURE...: figures of the experiments that match
  local folder=$1 pattern=$2 runs=() path
  shift 2
  for path in "$out"/gaitprop/*/*/; do
    # shellcheck disable=SC2053
    [[ $(basename "$(dirname "$path")") == $pattern ]] && runs+=("$path")
  done
  ((${#runs[@]})) || { echo "$folder: no runs"; return 0; }
  "$python" -m scripts.plot "${runs[@]}" --figure "$@" --out "$out/figures/$folder" ||
    echo "$folder: nothing drawn"
}
if [[ -n $data_dir ]]; then
  draw square 'sq4-@(bp|gait|tp)?(-kmnist|-fmnist)' learning-curves peak-final
  draw square-mnist 'sq4-@(bp|gait|tp|gait-noreg)' angle orthogonality scatter
  for data in kmnist fmnist; do
    draw "square-$data" "sq4-@(bp|gait|tp)-$data" angle orthogonality scatter
  done
  draw tower 'tower-*' tower-networks
  draw linear 'sq4-*-linear*' linear-networks
  draw depth '@(depth-?-*|sq4-@(bp|gait|tp))' depth
  draw variants '@(sq4-gait?(-noreg)|itp|init-glorot|gamma-sweep)' learning-curves
  draw grid grid grid
  draw roundoff roundoff roundoff
else
  draw square 'digits-h4-@(bp|gait|tp|noreg)' \
    learning-curves peak-final angle orthogonality scatter
  draw tower 'digits-tower-*' tower-networks
  draw linear 'digits-*-linear' linear-networks
  draw depth 'digits-h?-@(bp|gait|tp)' depth
fi
echo "table: $out/table.md"
echo "figures: $out/figures"
