"""Settings of mask training, and of whole experiments."""

from dataclasses import dataclass
from typing import Literal, get_args

from shared.config import check_choices, check_ranges, traced
from shared.errors import UsageError

TaskName = Literal[
    "tuple",
    "tuple_ff",
    "tuple_ff_copyweight",
    "addmul",
    "addmul_ff",
    "scan",
    "trafo_scan",
    "cifar10_class_removal",
    "cifar10_resnet_class_removal",
    "cifar10_mask_stability",
    "cifar10_grad_cosine",
    "permuted_mnist",
    "deepmind_math",
]
TupleMode = Literal[
    "together",
    "only_one",
    "only_one_io",
    "same_output",
    "same_input",
    "same_io",
]
ScanSplit = Literal["simple", "length", "jump", "turn_left"]
TASKS, TUPLE_MODES, SCAN_SPLITS = map(get_args, (TaskName, TupleMode, ScanSplit))
DIFFICULTIES = ("easy", "medium", "hard")


@dataclass(frozen=True)
class MaskConfig:
    """How masks are trained over the frozen weights of a network.

    Attributes:
        mask_lr: learning rate of Adam over the logits.
        mask_loss_weight: λ; each logit is pushed down with λ / batch_size.
        mask_init: logits at the start; a weight is kept with probability σ(logit).
        mask_tau: temperature of the samples.
        mask_steps: updates of each mask.
        mask_batch_size: rows of a batch in mask training, 0 for `batch_size`.
        mask_warmup: steps over which the learning rate rises linearly.
        mask_samples: N, masks per update; each serves batch / N contiguous rows.
        mask_kind: straight-through Gumbel-sigmoid samples, hard-concrete samples
            (Louizos et al. 2018), or a sigmoid that anneals to a step (Savarese et al.
            2020).
        mask_penalty: linear in the logits, expected L0 norm, or distance of the
            expected density from a target that falls linearly from 1.
        mask_density: the target at the end, for the penalty "density".
        mask_patience: stop a mask that has not changed for so many updates; 0 never.
        mask_biases: whether biases have masks too.
        scale_mask_loss: scale each parameter's penalty by the running mean of its
            gradient norm.
        mask_noise: source of random numbers: "hash" is the fast one.
        mask_how: schedule over the samples, see `masking.batched_apply`; "loop" goes
            through them one after the other and needs the memory of one.
        batch_size: rows of a batch, and the divisor of the penalty.
        grad_clip: largest L2 norm of the gradient of all logits; 0 does not clip.
        eval_every: updates between evaluations; 0 evaluates at the end only.
        checkpoint_every: updates between checkpoints; 0 means `eval_every`.
        seed: of all random streams.
    """

    mask_lr: float = traced(1e-2)
    mask_loss_weight: float = traced(1e-4)
    mask_init: float = traced(2.0)
    mask_tau: float = 1.0
    mask_steps: int = 10_000
    mask_batch_size: int = 0
    mask_warmup: int = traced(0)
    mask_samples: int = 4
    mask_kind: Literal["gumbel", "hard_concrete", "annealed"] = "gumbel"
    mask_penalty: Literal["linear", "l0", "density"] = "linear"
    mask_density: float = traced(0.1)
    mask_patience: int = 0
    mask_biases: bool = True
    scale_mask_loss: bool = False
    mask_noise: Literal["hash", "threefry"] = "hash"
    mask_how: Literal["auto", "vmap", "loop", "shard"] = "auto"
    batch_size: int = 128
    grad_clip: float = 1.0
    eval_every: int = 1000
    checkpoint_every: int = 0
    seed: int = traced(0)

    def __post_init__(self):
        """Refuse values that no mask can be trained with."""
        check_choices(self)
        check_ranges(self, "mask_lr", "mask_tau", low=0, low_open=True)
        check_ranges(self, "mask_loss_weight", "grad_clip", low=0)
        check_ranges(self, "mask_init", low=-100, high=100)
        check_ranges(self, "mask_density", low=0, high=1)
        check_ranges(self, "mask_steps", "mask_samples", "batch_size", low=1)
        check_ranges(self, "mask_batch_size", "mask_warmup", "mask_patience", low=0)
        check_ranges(self, "eval_every", "checkpoint_every", low=0)
        check_ranges(self, "seed", low=0, high=2**31 - 1)
        name = "mask_batch_size" if self.mask_batch_size else "batch_size"
        if rows_of_batch(self) % self.mask_samples:
            allowed = f"a multiple of mask_samples ({self.mask_samples})"
            raise UsageError(name, rows_of_batch(self), allowed)


def rows_of_batch(config: MaskConfig) -> int:
    """Return the rows of a batch in mask training."""
    return config.mask_batch_size or config.batch_size


@dataclass(frozen=True)
class Config(MaskConfig):
    """One experiment: the training of a network, then of its masks.

    Attributes:
        task: what the network has to do, and which analysis follows.
        steps: updates of the weights.
        optimizer: Adam, or SGD with momentum 0.9; both with L2 weight decay.
        lr: learning rate of the weights.
        weight_decay: factor of the L2 penalty, added to the clipped gradient.
        adam_b2, adam_eps: of Adam over the weights.
        lr_warmup: steps over which the learning rate rises linearly.
        lr_steps: steps at which it is multiplied by `lr_gamma`.
        lr_gamma: that factor.
        lr_inverse_root: the schedule of Vaswani et al. (2017) instead, whose peak, at
            update 4,000, is `lr`.
        clip_weights: whether `grad_clip` also holds for the weights.
        digits: digits of an operand, for the arithmetic tasks.
        layer_sizes: hidden layers of the feed-forward networks.
        state_size: units of an LSTM layer, width of a transformer.
        layers: LSTM layers.
        dropout: of sequence-to-sequence networks.
        embedding_size: of the LSTM encoder-decoder.
        heads, ff_multiplier, encoder_layers, decoder_layers: of transformers.
        tied_embeddings: one table for source, target and output.
        cnn_dropout: whether the small CNN has dropout.
        resnet_depth: layers of the residual network, 6n + 2.
        tuple_delay: steps of the weights on the first pair alone, for LSTMs.
        tuple_mode: how pairs are shown to an LSTM and read from it.
        held_out_pairs: validate arithmetic on operand pairs never trained on.
        scan_train_split: what the weights are trained on.
        scan_analyze_splits: what masks are trained on.
        removed_classes: classes that are removed, a mask for each; empty for all.
        keep_last_layer: take the output layer's mask from the control.
        math_task: module of the Mathematics Dataset.
        math_train_splits, math_mask_splits: difficulties for weights and masks.
        math_items: pairs to generate per difficulty where files are absent.
        stability_on: sub-tasks whose masks are trained twice: pairs of classes, or
            all classes but one.
        transfer_new_init, transfer_used_init: logits of weights that earlier tasks
            do not use, or use.
        transfer_reset_first_layer: train the first layer anew for each task.
        transfer_tasks: number of permutations.
        inverse_io: what input and output layers do in the inverse-mask test: take part,
            take the control's mask, or have no mask.
        analysis: whether masks are trained at all.
        only_control: train the control mask alone.
        plot_masks: draw masks and histograms during training.
        skip_layernorm: no masks for layer norms.
        train_baseline: train the weights on the data of the masks only, and test.
        restore: run directory whose trained weights are taken; empty trains them.
        data_limit: rows of image sets that are used, 0 for all.
        valid_limit: rows of each validation set that are used, 0 for all.
    """

    task: TaskName = "tuple"
    steps: int = 20_000
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = traced(1e-3)
    weight_decay: float = traced(0.0)
    adam_b2: float = 0.999
    adam_eps: float = 1e-8
    lr_warmup: int = traced(0)
    lr_steps: tuple[int, ...] = ()
    lr_gamma: float = 0.1
    lr_inverse_root: bool = False
    clip_weights: bool = True
    digits: int = 2
    layer_sizes: tuple[int, ...] = (800, 800, 256)
    state_size: int = 128
    layers: int = 2
    dropout: float = 0.0
    embedding_size: int = 16
    heads: int = 4
    ff_multiplier: float = 2.0
    encoder_layers: int = 3
    decoder_layers: int = 3
    tied_embeddings: bool = False
    cnn_dropout: bool = True
    resnet_depth: int = 110
    tuple_mode: TupleMode = "together"
    tuple_delay: int = 0
    held_out_pairs: bool = False
    scan_train_split: ScanSplit = "simple"
    scan_analyze_splits: tuple[str, ...] = ("jump", "length", "turn_left")
    removed_classes: tuple[int, ...] = ()
    keep_last_layer: bool = False
    math_task: str = "arithmetic__add_or_sub"
    math_train_splits: tuple[str, ...] = ("easy", "medium", "hard")
    math_mask_splits: tuple[str, ...] = ("easy",)
    math_items: int = 60_000
    stability_on: Literal["minimal", "all"] = "minimal"
    transfer_new_init: float = traced(2.0)
    transfer_used_init: float = traced(2.0)
    transfer_reset_first_layer: bool = True
    transfer_tasks: int = 11
    inverse_io: Literal["none", "fullmask", "ones"] = "none"
    analysis: bool = True
    only_control: bool = False
    plot_masks: bool = False
    skip_layernorm: bool = False
    train_baseline: bool = False
    restore: str = ""
    data_limit: int = 0
    valid_limit: int = 0

    def __post_init__(self):
        """Refuse values that no experiment can run with."""
        super().__post_init__()
        check_choices(
            self,
            scan_analyze_splits=SCAN_SPLITS,
            math_train_splits=DIFFICULTIES,
            math_mask_splits=DIFFICULTIES,
        )
        check_ranges(self, "lr", "adam_eps", "ff_multiplier", low=0, low_open=True)
        check_ranges(self, "weight_decay", low=0)
        check_ranges(self, "adam_b2", "dropout", low=0, high=1, high_open=True)
        check_ranges(self, "digits", low=1, high=4)
        check_ranges(self, "steps", "state_size", "layers", "layer_sizes", low=1)
        check_ranges(self, "embedding_size", "heads", "transfer_tasks", low=1)
        check_ranges(self, "encoder_layers", "decoder_layers", low=1)
        check_ranges(self, "lr_warmup", "data_limit", "valid_limit", low=0)
        check_ranges(self, "math_items", "tuple_delay", low=0)
        check_ranges(self, "removed_classes", low=0, high=9)
        if self.resnet_depth < 8 or self.resnet_depth % 6 != 2:
            raise UsageError("resnet_depth", self.resnet_depth, "6 n + 2, n >= 1")
        if self.tuple_delay and self.task != "tuple":
            raise UsageError("tuple_delay", self.tuple_delay, "0, but for task tuple")
        if self.train_baseline and self.restore:
            raise UsageError("restore", self.restore, "empty with train_baseline")
