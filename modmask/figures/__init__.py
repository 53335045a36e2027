"""Figures of runs; each function reads run directories and returns a figure.

Bars are means over repetitions, with sample standard deviations; lines across bars are
chance levels; tables add 95 % confidence intervals.
"""

from modmask.figures import arithmetic, images, masks, sequences

FIGURES = {
    "addmul_confusion": arithmetic.addmul_confusion,
    "addmul_iou": arithmetic.addmul_iou,
    "tuple_iou": arithmetic.tuple_iou,
    "addmul_performance": arithmetic.addmul_performance,
    "addmul_weight_proportion": arithmetic.addmul_weight_proportion,
    "weight_sharing_vs_size": arithmetic.weight_sharing_vs_size,
    "mask_weight_sensitivity": arithmetic.mask_weight_sensitivity,
    "tuple_performance": arithmetic.tuple_performance,
    "tuple_performance_each": arithmetic.tuple_performance_each,
    "halfmask": masks.halfmask,
    "mask_histogram": masks.mask_histogram,
    "scan_accuracies": sequences.scan_accuracies,
    "scan_removed_vs_baseline": sequences.scan_removed_vs_baseline,
    "scan_output_token_removed_percentage": (
        sequences.scan_output_token_removed_percentage
    ),
    "cifar10_confusion_diff": images.cifar10_confusion_diff,
    "cifar10_drop_per_class": images.cifar10_drop_per_class,
    "cifar10_drop_statistics": images.cifar10_drop_statistics,
    "mask_iou": images.mask_iou,
    "transfer_sharing": images.transfer_sharing,
    "dm_math": sequences.dm_math,
    "faithfulness": masks.faithfulness,
    "mask_curves": masks.mask_curves,
}
"""Figures by name; each takes run directories."""
