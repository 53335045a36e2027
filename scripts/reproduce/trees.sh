#!/usr/bin/env bash
# Reproduce the study of dynamic routing: train its networks, write the table and the
# figures.
#
#   scripts/reproduce/trees.sh [--scale smoke|small|paper] [--data-dir DIR]
#                              [--out DIR] [--seeds N] [--only PATTERN]
#
# DIR holds MNIST and CIFAR-10. Without it the studies on the embedded digits are run,
# which are small at any scale. The published networks take 80,000 updates each at the
# scale paper, the default, 800 at small and 40 at smoke.
# An experiment that is finished under --out is not trained again; one that was killed
# is resumed. PATTERN is a shell pattern of experiment names, such as 'hybrid-ac*'.
set -euo pipefail

system=trees scale=paper data_dir='' out=runs/reproduce-trees seeds='' only='*'
source "$(dirname "${BASH_SOURCE[0]}")/common.bash"
parse "$@"

digits=()
for data in digits digits-hybrid; do
  digits+=("$data"-{sr,ac,ac-notalr,ac-dynkcpt,cr,cr-notalr,cr-opt,cr-dynkcpt})
done
if [[ -n $data_dir ]]; then
  names=(
    hybrid-sr hybrid-ac{,-nokdec,-notalr,-globopt,-dynkcpt,-tree,-tree-dynkcpt}
    hybrid-cr{,-opt,-clserr,-notalr,-dynkcpt,-tree-dynkcpt}
    cifar{2,5,10}-{sr,ac} cifar10-{sr,ac}-{fat,fatter}
  )
else
  names=("${digits[@]}")
fi

for name in "${names[@]}"; do
  members=${seeds:-1}
  [[ $name != digits* ]] || members=${seeds:-3}
  train_one "$name" "$scale" "$members"
done
table

if [[ -n $data_dir ]]; then
  draw all '*' acc-eff nlds routing-hists pres-figs videos
else
  for data in digits digits-hybrid; do
    draw "$data" "$data-@(sr|ac|cr)*" acc-eff nlds routing-hists
  done
fi
finish
