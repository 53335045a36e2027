"""Flags of the published programs, said in ours."""

import warnings
from collections.abc import Mapping, Sequence

from enasq.config import Config
from shared import flags
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

SWITCH = {
    "True": ("true", "t", "1", "yes"),
    "False": ("false", "f", "0", "no"),
}
"""How switches are spelled."""


def translated(words: Words, config: Config) -> Words:
    """Return flags and their values with the published spellings in ours.

    What has no effect is left out with a warning.

    Args:
        words: from `flags.split`.
        config: what the flags change.

    Raises:
        UsageError: for a value that no program supports, for a controller to be
            trained with a fixed architecture, and for a bound of gradients without
            clipping.
    """
    kinds = flags.hints(Config)
    found: Words = []
    for name, values in words:
        for ours, given in _translated(name, values):
            switch = kinds.get(ours) is bool
            found.append((ours, [_switch(name, given)] if switch else given))
    given = dict(found)
    fixed = given.get("task", [config.task]) == ["fixed"]
    if fixed and given.get("controller") == ["True"]:
        allowed = "False with an architecture, which leaves nothing to search"
        raise UsageError("controller_training", True, allowed)
    if "architecture" in given and "blocks" not in given:
        found.append(("blocks", ["0"]))
    published = any(name == "child_grad_bound" for name, _ in words)
    return found + _clipping(given, config, published)


def _clipping(given: Mapping[str, list[str]], config: Config, published: bool) -> Words:
    """Return what clips where a bound is given and nothing does.

    Args:
        given: flags and their values, in our spelling.
        config: what they change.
        published: whether the bound has its published name, which clips as well.
    """
    clip = given.get("clip", [config.clip])
    if "clip_bound" not in given or clip != ["none"]:
        return []
    if not published or "clip" in given:
        bound = " ".join(given["clip_bound"])
        hint = "Set --clip norm or --clip global."
        raise UsageError("clip_bound", bound, "none with clip none", hint)
    return [("clip", ["published_norm" if config.compat else "norm"])]


def _translated(name: str, values: Sequence[str]) -> Words:
    values = list(values)
    if name in ARCHITECTURE:
        if values == ["None"]:
            return []
        return [("architecture", [" ".join(values)]), ("task", ["fixed"])]
    if name == "child_lr_cosine":
        cosine = _switch(name, values) == "True"
        return [("schedule", ["cosine" if cosine else "exponential"])]
    if name == "child_grad_bound":
        return [("clip", ["none"])] if values == ["None"] else [("clip_bound", values)]
    if name == "reset_output_dir" or name in IDLE:
        reason = (
            "as in the published programs"
            if name in IDLE
            else "every run has a directory of its own, and --resume goes on with one"
        )
        warnings.warn(f"--{name} has no effect: {reason}", stacklevel=3)
        return []
    if name in ONLY:
        only = ONLY[name]
        same = _switch(name, values) if only in SWITCH else " ".join(values)
        if same != only:
            raise UsageError(name, " ".join(values), only)
        return []
    if name in RENAMED:
        # None switches off, as 0 does here.
        return [
            (RENAMED[name], ["0" if value == "None" else value for value in values])
        ]
    return [(name, values)]


def _switch(name: str, values: Sequence[str]) -> str:
    """Return True or False, as the command line takes it; a bare flag is True."""
    given = " ".join(values)
    for spelled, words in SWITCH.items():
        if (given.lower() or "true") in words:
            return spelled
    raise UsageError(name, given, "True or False")
