#!/usr/bin/env bash
# Reproduce the study of dynamic routing: train its networks, write the table and the
# figures.
#
#   scripts/reproduce/trees.sh [--scale smoke|small|paper] [--data-dir DIR]
#                              [--out DIR] [--seeds N] [--only PATTERN]
#
# DIR holds MNIST and CIFAR-10. Without it only the studies on the embedded digits are
# run, which are small at any scale. The published networks take 80,000 updates each at
# the scale paper, the default, 800 at small and 40 at smoke. N is how often each network
# is trained: 3 times on digits and once otherwise, unless it is given.
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
published=()
if [[ -n $data_dir ]]; then
  published=(
    hybrid-sr hybrid-ac{,-nokdec,-notalr,-globopt,-dynkcpt,-tree,-tree-dynkcpt}
    hybrid-cr{,-opt,-clserr,-notalr,-dynkcpt,-tree-dynkcpt}
    cifar{2,5,10}-{sr,ac} cifar10-{sr,ac}-{fat,fatter}
  )
fi

for name in "${digits[@]}" ${published[@]+"${published[@]}"}; do
  members=${seeds:-1}
  [[ $name != digits* ]] || members=${seeds:-3}
  train_one "$name" "$scale" "$members"
done
table

figures=(acc-eff nlds routing-hists pres-figs videos)
for data in digits digits-hybrid; do
  draw "$data" "$data-@(sr|ac|cr)*" "${figures[@]}"
done
if [[ -n $data_dir ]]; then
  draw published '@(hybrid|cifar)*' "${figures[@]}"
fi
finish
