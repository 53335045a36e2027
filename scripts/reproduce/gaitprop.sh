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

system=gaitprop scale=paper data_dir='' out=runs/reproduce-gaitprop seeds=5 only='*'
source "$(dirname "${BASH_SOURCE[0]}")/common.bash"
parse "$@"

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

for name in "${names[@]}"; do
  members=$seeds
  # A sweep has members enough, and the arithmetic of one seed is that of all.
  case $name in grid | gamma-sweep | roundoff) members=1 ;; esac
  train_one "$name" "$scale" "$members"
done
table

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
finish
