#!/usr/bin/env bash
# Reproduce the study of quantised cells: search, train what was found beside random
# cells and floats, export it, write the table and the figures.
#
#   scripts/reproduce/enasq.sh [--scale smoke|small|paper] [--data-dir DIR]
#                              [--out DIR] [--seeds N] [--only PATTERN]
#
# DIR holds MNIST and CIFAR-10. Without it the studies on the embedded digits are run,
# which take minutes. At the scale paper, the default, the searches of the published
# program take days on two cores, and CIFAR-10 needs an accelerator; small makes three
# epochs, smoke 20 updates.
# An experiment that is finished under --out is not trained again; one that was killed
# is resumed. PATTERN is a shell pattern of experiment names, such as 'digits-*'.
set -euo pipefail

system=enasq scale=paper data_dir='' out=runs/reproduce-enasq seeds='' only='*'
source "$(dirname "${BASH_SOURCE[0]}")/common.bash"
parse "$@"

searches=(digits-search-only digits-search-published digits-bits)
studies=(digits-search)
trainings=()
if [[ -n $data_dir ]]; then
  searches+=(mnist-search-only search_{mnist,cifar}{,_published} enas_search)
  studies+=(mnist-search)
  trainings=(train_{mnist,cifar}{,_published} enas_final)
fi

for name in "${searches[@]}" "${studies[@]}" ${trainings[@]+"${trainings[@]}"}; do
  train_one "$name" "$scale" "${seeds:-1}"
done
table

for name in "${searches[@]}"; do
  draw "$name" "$name" search entropy cells operations pareto
done
for name in "${studies[@]}"; do
  draw "$name" "$name" search entropy cells operations pareto bits ranking
done
for name in ${trainings[@]+"${trainings[@]}"}; do
  draw "$name" "$name" samples cells training weights
done
finish
