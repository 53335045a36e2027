"""Flags of the published programs, said in ours."""

from collections.abc import Sequence

from shared.errors import UsageError

Words = list[tuple[str, list[str]]]

RENAMED = {
    "output_dir": "out",
    "data_path": "data_dir",
    "train_data_dir": "train_dir",
    "val_data_dir": "valid_dir",
    "test_data_dir": "test_dir",
    "channel": "channels",
    "img_size": "image_size",
    "n_aug_img": "copies",
    "num_epochs": "epochs",
    "eval_every_epochs": "eval_every",
    "child_num_layers": "layers",
    "child_num_cells": "blocks",
    "child_out_filters": "filters",
    "child_use_aux_heads": "aux_head",
    "child_cutout_size": "cutout",
    "child_grad_bound": "clip_bound",
    "child_keep_prob": "keep",
    "child_drop_path_keep_prob": "drop_path_keep",
    "child_l2_reg": "l2",
    "child_lr": "learning_rate",
    "child_lr_dec_rate": "lr_decay",
    "child_lr_dec_every": "lr_decay_epochs",
    "child_lr_max": "lr_max",
    "child_lr_min": "lr_min",
    "child_lr_T_0": "lr_period",
    "child_lr_T_mul": "lr_multiplier",
    "controller_training": "controller",
    "controller_train_every": "controller_every",
    "controller_train_steps": "controller_updates",
    "controller_num_aggregate": "controller_samples",
    "controller_l2_reg": "controller_l2",
    "controller_bl_dec": "baseline_decay",
    "controller_tanh_constant": "tanh_constant",
    "controller_op_tanh_reduce": "op_tanh_reduce",
    "controller_temperature": "temperature",
    "controller_entropy_weight": "entropy_weight",
    "n_bits": "bits",
}
"""What is only called otherwise."""

ONLY = {
    "data_format": "NHWC",
    "search_for": "micro",
    "child_num_branches": "5",
    "child_num_aggregate": "None",
    "child_num_replicas": "1",
    "child_sync_replicas": "False",
    "controller_num_replicas": "1",
    "controller_sync_replicas": "True",
    "controller_use_critic": "False",
}
"""What can have one value alone, in the published programs too."""

IDLE = (
    "child_filter_size",
    "child_out_filters_scale",
    "child_block_size",
    "child_skip_pattern",
    "controller_keep_prob",
    "controller_lr_dec_rate",
    "controller_skip_target",
    "controller_skip_weight",
    "controller_forwards_limit",
    "controller_search_whole_channels",
)
"""What the published programs read and never use."""

ARCHITECTURE = ("fixed_arc", "child_fixed_arc")


def translated(words: Words) -> Words:
    """Return flags and their values with the published spellings in ours.

    Raises:
        UsageError: for a value that no program supports, for flags that never did
            anything, and for a controller to be trained with a fixed architecture.
    """
    found: Words = []
    for name, values in words:
        found += _translated(name, values)
    given = dict(found)
    if "architecture" in given and given.get("controller") == ["True"]:
        allowed = "False with an architecture, which leaves nothing to search"
        raise UsageError("controller_training", True, allowed)
    return found


def _translated(name: str, values: Sequence[str]) -> Words:
    if name in ARCHITECTURE:
        return [("architecture", [" ".join(values)]), ("task", ["fixed"])]
    if name == "reset_output_dir":
        hint = "Every run has a directory of its own; --resume goes on with one."
        raise UsageError(name, " ".join(values), "no such flag", hint)
    if name == "child_lr_cosine":
        schedule = "exponential" if list(values) == ["False"] else "cosine"
        return [("schedule", [schedule])]
    if name in IDLE:
        hint = "The published programs read it and never use it."
        raise UsageError(name, " ".join(values), "no such flag", hint)
    if name in ONLY:
        if list(values) != [ONLY[name]]:
            raise UsageError(name, " ".join(values), ONLY[name])
        return []
    if name in RENAMED:
        # None switches off, as 0 does here.
        given = ["0" if value == "None" else value for value in values]
        return [(RENAMED[name], given)]
    return [(name, list(values))]
