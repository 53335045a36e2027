"""Options of the published program, by their names there, and the fields they set."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modmask.config import SCAN_SPLITS, TASKS, TUPLE_MODES, Config
from modmask.experiments import OF_TASK
from modmask.profiles import DEFAULTS, PROFILES
from shared.errors import UsageError, check_choice

REPETITION = "sweep_id_for_grid_search"
"""The parameter that counts repetitions; here it is the seed."""

Reader = Callable[[str, Any], Any]


def to_config(options: Mapping[str, Any]) -> Config:
    """Return the config that options of the published program ask for.

    A profile holds where `options` say nothing, the settings of the task and the
    published defaults where neither does.

    Raises:
        UsageError: for an unknown option or profile, or a value that is not allowed.
    """
    options = {full_name(name): value for name, value in options.items()}
    profile = options.pop("profile", None)
    merged = {**DEFAULTS, **_profile(profile), **options}
    fields = dict(OF_TASK.get(_task("task", merged["task"]), {}))
    for name, value in merged.items():
        if name in OPTIONS:
            field, reader = OPTIONS[name]
            fields[field] = reader(name, value)
    if merged.get(REPETITION):
        fields["seed"] = _whole(REPETITION, merged[REPETITION])
    if fields["mask_lr"] == 0:
        fields["mask_lr"] = fields["lr"]
    if fields["task"] == "permuted_mnist":
        # There, masks are trained along with the weights.
        fields["mask_steps"] = fields["steps"]
    return Config(**fields)


def notes(options: Mapping[str, Any]) -> list[str]:
    """Say of each option that has no effect here what to use instead."""
    found = []
    for name, value in options.items():
        note = ELSEWHERE.get(SHORT.get(name, name))
        # Repetitions are explained where they are chosen.
        if note and name != REPETITION and spell(value) not in ("0", "none"):
            found.append(f"{name} {spell(value)}: {note}")
    return found


def full_name(name: str) -> str:
    """Return the full name of an option of the published program."""
    name = SHORT.get(name, name)
    check_choice("option", name, (*OPTIONS, *ELSEWHERE, "name", "profile"))
    return name


def spell(value: Any) -> str:
    """Return a value as it is written in a sweep file."""
    return "none" if value is None else str(value)


def _profile(names: Any) -> dict[str, Any]:
    """Merge profiles; where two of them differ, the later one holds."""
    merged: dict[str, Any] = {}
    for name in _names("profile", names):
        check_choice("profile", name, PROFILES)
        merged.update(PROFILES[name])
    return merged


def _is_none(value: Any) -> bool:
    return value is None or str(value).lower() == "none"


def _number(name: str, value: Any) -> float:
    """YAML reads 1e-2, which has no point, as a word."""
    try:
        return float(str(value))
    except ValueError:
        raise UsageError(name, value, "a number") from None


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if not number.is_integer():
        raise UsageError(name, value, "a whole number")
    return int(number)


def _flag(name: str, value: Any) -> bool:
    words = {"0": False, "1": True, "false": False, "true": True}
    check_choice(name, str(value).lower(), words)
    return words[str(value).lower()]


def _no(name: str, value: Any) -> bool:
    return not _flag(name, value)


def _or(absent: float | int, reader: Reader) -> Reader:
    """Let "none" stand for a number that switches something off."""
    return lambda name, value: absent if _is_none(value) else reader(name, value)


def _names(name: str, value: Any) -> tuple[str, ...]:
    del name
    if _is_none(value):
        return ()
    parts = value if isinstance(value, list) else str(value).split(",")
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _wholes(name: str, value: Any) -> tuple[int, ...]:
    """Read integers between commas, underscores, semicolons or spaces."""
    if _is_none(value):
        return ()
    parts: Sequence[Any] = value if isinstance(value, list) else [value]
    table = str.maketrans("_;,", "   ")
    words = [word for part in parts for word in str(part).translate(table).split()]
    return tuple(_whole(name, word) for word in words)


def _one(name: str, value: Any) -> str:
    found = _names(name, value)
    if len(found) != 1:
        allowed = "one name; list several as values, each a member of the sweep"
        raise UsageError(name, value, allowed)
    return found[0]


def _steps(name: str, value: Any) -> int:
    if _is_none(value):
        raise UsageError(name, "none", "a number of steps", "Training has to end.")
    return _whole(name, value)


def _word(*choices: str) -> Reader:
    def read(name: str, value: Any) -> str:
        check_choice(name, spell(value), choices)
        return spell(value)

    return read


def _task(name: str, value: Any) -> str:
    given = spell(value)
    task = TASK_NAMES.get(given, given)
    check_choice(name, task, TASKS)
    return task


def _path(name: str, value: Any) -> str:
    del name
    return "" if _is_none(value) else str(value)


TASK_NAMES = {
    "cifar10_resnet_hp_class_removal": "cifar10_resnet_class_removal",
    "cifar10_grad_cos_distance": "cifar10_grad_cosine",
}
"""Tasks that have another name here."""

SHORT = {"dm_math.task": "dm_math.tasks"}
"""Options that the published program completes."""

OPTIONS: dict[str, tuple[str, Reader]] = {
    "task": ("task", _task),
    "seed": ("seed", _or(0, _whole)),
    "batch_size": ("batch_size", _whole),
    "mask_batch_size": ("mask_batch_size", _or(0, _whole)),
    "save_interval": ("checkpoint_every", _or(0, _whole)),
    "test_interval": ("eval_every", _whole),
    "lr": ("lr", _number),
    "wd": ("weight_decay", _number),
    "optimizer": ("optimizer", _word("adam", "sgd")),
    "lr_warmup": ("lr_warmup", _whole),
    "lr_sched.steps": ("lr_steps", _wholes),
    "lr_sched.gamma": ("lr_gamma", _number),
    "transformer.use_paper_lr_schedule": ("lr_inverse_root", _flag),
    "grad_clip": ("grad_clip", _or(0.0, _number)),
    "stop_after": ("steps", _steps),
    "step_per_mask": ("mask_steps", _whole),
    "mask_lr": ("mask_lr", _or(0.0, _number)),
    "mask_loss_weight": ("mask_loss_weight", _number),
    "mask_init": ("mask_init", _number),
    "scale_mask_loss": ("scale_mask_loss", _flag),
    "bias_no_mask": ("mask_biases", _no),
    "masking.warmup.nsteps": ("mask_warmup", _whole),
    "n_digits": ("digits", _whole),
    "state_size": ("state_size", _whole),
    "n_layers": ("layers", _whole),
    "layer_sizes": ("layer_sizes", _wholes),
    "dropout": ("dropout", _number),
    "tuple.mode": ("tuple_mode", _word(*TUPLE_MODES)),
    "tuple.tuple2_delay": ("tuple_delay", _whole),
    "scan.train_split": ("scan_train_split", _word(*SCAN_SPLITS)),
    "scan.analyze_splits": ("scan_analyze_splits", _names),
    "encoder_decoder.embedding_size": ("embedding_size", _whole),
    "transformer.n_heads": ("heads", _whole),
    "transformer.ff_multiplier": ("ff_multiplier", _number),
    "transformer.encoder_n_layers": ("encoder_layers", _whole),
    "transformer.decoder_n_layers": ("decoder_layers", _whole),
    "cnn.dropout": ("cnn_dropout", _flag),
    "class_removal.keep_last_layer": ("keep_last_layer", _flag),
    "transfer.mask_new_init": ("transfer_new_init", _number),
    "transfer.mask_used_init": ("transfer_used_init", _number),
    "transfer.reset_first_layer": ("transfer_reset_first_layer", _flag),
    "dm_math.tasks": ("math_task", _one),
    "dm_math.train_splits": ("math_train_splits", _names),
    "dm_math.masks_splits": ("math_mask_splits", _names),
    "mask_stability.measure_on": ("stability_on", _word("minimal", "all")),
    "inv_mask_exclude_io": ("inverse_io", _word("none", "fullmask", "ones")),
    "analysis.enable": ("analysis", _flag),
    "analysis.plot_masks": ("plot_masks", _flag),
    "analysis.only_verify_masks": ("only_control", _flag),
    "analysis.skip_layernorm": ("skip_layernorm", _flag),
    "restore_pretrained": ("restore", _path),
    "train_baseline": ("train_baseline", _flag),
}
"""Field of `Config` and reader of its values, by option of the published program."""

ELSEWHERE = {
    REPETITION: "the seed",
    "log": "use --sinks tensorboard wandb",
    "reset": "each run has a directory of its own",
    "gpu": "use --devices N, or CUDA_VISIBLE_DEVICES",
    "keep_alive": "left out; TensorBoard is started by its user",
    "test_batch_size": "left out; results do not depend on it",
    "test_pretrained": "restored weights are always evaluated",
}
"""Options that are no settings of an experiment, and what takes their place."""
