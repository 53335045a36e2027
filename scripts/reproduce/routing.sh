#!/usr/bin/env bash
# Reproduce the study of routing networks: train its networks, write the table and the
# figures.
#
#   scripts/reproduce/routing.sh [--scale smoke|small|paper] [--data-dir DIR]
#                                [--out DIR] [--seeds N] [--only PATTERN]
#
# DIR holds MNIST and CIFAR-100. Without it the studies on the embedded digits and on
# opposed tasks are run. At the scale paper, the default, the digits take hours on two
# cores, and CIFAR-100 needs an accelerator; small makes 2,000 updates, smoke 20.
# An experiment that is finished under --out is not trained again; one that was killed
# is resumed. PATTERN is a shell pattern of experiment names, such as 'digits-mtl-*'.
set -euo pipefail

system=routing scale=paper data_dir='' out=runs/reproduce-routing seeds='' only='*'
source "$(dirname "${BASH_SOURCE[0]}")/common.bash"
parse "$@"

models=(routed dispatched single)
sweeps='rho|modules|routing-lr|exploration|final-reward|depth|detach|tasks|remedies'
presets='upstream-default|upstream-2018|upstream-adam|early|corrected'
if [[ -n $data_dir ]]; then
  sets=(mnist-mtl cifar100-mtl)
else
  sets=(digits-mtl digits-mtl-permuted)
fi

names=()
for data in "${sets[@]}"; do
  for model in "${models[@]}"; do names+=("$data-$model-algorithms"); done
  names+=("$data-baselines")
  # Sweeps are about the networks, and permuted labels change the tasks alone.
  [[ $data != *-permuted ]] || continue
  for sweep in ${sweeps//|/ }; do names+=("$data-$sweep"); done
done
if [[ -n $data_dir ]]; then
  for preset in ${presets//|/ }; do names+=("cifar100-mtl-$preset"); done
  names+=(cifar100-mtl-large-wpl)
else
  names+=(conflict-{2,4}-algorithms scan-recursive scan-fixed)
fi

for name in "${names[@]}"; do
  members=${seeds:-3}
  # Whether routing solves opposed tasks is a matter of rates.
  [[ $name != conflict-* ]] || members=${seeds:-20}
  [[ $name != cifar100-* ]] || members=${seeds:-1}
  train_one "$name" "$scale" "$members"
done
table

every=(accuracy tasks entropy collapse use routes)
for data in "${sets[@]}"; do
  for model in "${models[@]}"; do
    draw "$data-$model" "$data-@($model-algorithms|baselines)" "${every[@]}"
  done
  [[ $data == *-permuted ]] || draw "$data-sweeps" "$data-@($sweeps)" sweep
done
if [[ -n $data_dir ]]; then
  draw cifar100-mtl-presets "cifar100-mtl-@($presets|large-wpl)" "${every[@]}"
else
  for modules in 2 4; do
    draw "conflict-$modules" "conflict-$modules-algorithms" \
      accuracy entropy collapse use routes sweep
  done
  draw scan "scan-@(recursive|fixed)" accuracy entropy collapse use steps
fi
finish
