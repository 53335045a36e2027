#!/usr/bin/env bash
# Reproduce the study of weight masks: train its networks and masks, write the table and
# the figures.
#
#   scripts/reproduce/modmask.sh [--scale smoke|small|paper] [--data-dir DIR]
#                                [--out DIR] [--seeds N] [--only PATTERN]
#
# DIR holds CIFAR-10, MNIST, SCAN and the Mathematics Dataset. Without it, what needs no
# files is run: addition and multiplication, pairs of additions, SCAN from its grammar,
# and generated sums. At the scale paper, the default, this takes days on a GPU; small
# takes hours on a CPU and smoke an hour. N is 10, for the Mathematics Dataset 5, unless
# given. The runs reference_* are small by themselves and never shrunk.
# An experiment that is finished under --out is not trained again; one that was killed
# is resumed. PATTERN is a shell pattern of experiment names, such as 'tuple_*'.
set -euo pipefail

system=modmask scale=paper data_dir='' out=runs/reproduce-modmask seeds='' only='*'
source "$(dirname "${BASH_SOURCE[0]}")/common.bash"
parse "$@"

names=(
  reference_{addmul_feedforward,tuple_feedforward,tuple_rnn}
  addmul_rnn addmul_feedforward{,_big,_huge} addmul_ff_alpha_analysis
  tuple_rnn{,_first_full_mask} tuple_feedforward_small_halfmask
  tuple_feedforward_big{,_first_full_mask,_copyweight}
  scan trafo_scan scan_baseline dm_math_add_or_sub
)
files=(
  cifar10{,_no_dropout,_mask_stability,_grad_cosine,_resnet}
  transfer_sharing{,_prefer_old,_prefer_old_even_more}
  dm_math_{diff,lin1d,polycollect,sort}
)
if [[ -n $data_dir ]]; then
  names+=("${files[@]}")
else
  echo "without --data-dir, skipped: ${files[*]}"
fi

for name in "${names[@]}"; do
  size=$scale members=${seeds:-10}
  case $name in
    reference_*) size=paper ;;
    dm_math_*) members=${seeds:-5} ;;
  esac
  train_one "$name" "$size" "$members"
done
table

draw reference 'reference_*' addmul_performance addmul_iou tuple_performance tuple_iou \
  faithfulness
draw addmul 'addmul_@(rnn|feedforward*)' addmul_confusion addmul_iou \
  addmul_performance addmul_weight_proportion weight_sharing_vs_size
draw sensitivity addmul_ff_alpha_analysis mask_weight_sensitivity
draw tuple 'tuple_@(rnn|feedforward_big)?(_first_full_mask)' \
  tuple_iou tuple_performance tuple_performance_each
draw copyweight 'tuple_feedforward_big?(_copyweight)' tuple_iou
draw histogram '@(addmul_@(rnn|feedforward)|tuple_@(rnn|feedforward_big))' mask_histogram
draw halfmask \
  '@(trafo_scan|addmul_feedforward|tuple_@(rnn|feedforward_@(big|small_halfmask))|cifar10)' \
  halfmask
draw scan '@(scan|trafo_scan|scan_baseline)' scan_accuracies scan_removed_vs_baseline \
  scan_output_token_removed_percentage
draw cifar10 'cifar10?(_no_dropout|_resnet)' cifar10_confusion_diff \
  cifar10_drop_per_class cifar10_drop_statistics
draw stability cifar10_mask_stability mask_iou
draw transfer 'transfer_sharing*' transfer_sharing
draw math 'dm_math_*' dm_math
finish
