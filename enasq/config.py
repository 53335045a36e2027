"""Settings of a run."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from enasq import augmentation, controller, data, optimizer, parts, policy
from enasq.losses import LOSSES
from shared.config import check_choices, check_ranges, traced
from shared.errors import UsageError

COSTS = ("none", "bits", "bit_operations", "macs", "seconds")
"""What a budget may be of."""


@dataclass(frozen=True)
class Config:
    """A search, the training of one architecture, or a study of both.

    What is said of searches holds for tasks search and study.

    Attributes:
        task: search (shared weights and a controller); fixed (one architecture); or
            study: a search, its best architecture trained anew and exported, beside
            random ones of equal cost and the same cells in full precision.
        dataset: mnist, cifar10, digits or fashion_mnist.
        train_dir: of MNIST, folder or zip archive of PNG files to train on; empty for
            the official files.
        valid_dir: the same for validation images; empty holds some out.
        test_dir: the same for test images; needed with train_dir.
        image_size: height and width of an image; 0 for those of the set.
        channels: of an image, 1 or 3; 0 for those of the set.
        valid_size: training images held out; -1 for the usual number. Searches need
            some.
        copies: of each training image, one as it is and the others changed.
        augment: change images anew in each batch: none, digits or turns.
        crop: pixels around an image that a random crop may reach; 0 crops nothing.
        flip: mirror half of the training images.
        cutout: side of a random square that is set to 0; 0 leaves it out.
        cutout_anchor: what of the square is uniform: corner or centre.
        architecture: of task fixed, 8 integers for each block.
        layers: L; networks have L + 2 cells.
        blocks: of a cell; 0 takes those of the architecture, or 5.
        filters: F, of the first cells.
        pool_positions: which cells reduce: quarter, third, or their numbers.
        stride_inside: reduction cells of a search have strides inside, as those of the
            network that is trained afterwards.
        aux_head: train with an auxiliary head.
        policy: which quantiser is where: deployable, deployable_ternary,
            deployable_kbit, reference, published, all_binary, all_ternary, all_kbit
            or float.
        bits: of quantisers of k bits, 1 to 16; up to 8 run on packed words.
        choices: quantisers among which an architecture chooses for each operation:
            float, binary, ternary, approx_sign, swish_sign, or 4-bit with any number
            from 1 to 16.
        high: range H of binary and ternary weights, or Glorot: that of each kernel's
            size.
        loss: squared_hinge, hinge, softmax or published_hinge.
        optimizer: of the weights: momentum (Nesterov), sgd or adam.
        beta1: of adam, how slowly its first moment moves; 0 keeps none.
        epsilon: of adam, beside the root of the second moment.
        schedule: of the learning rate: cosine with restarts, or exponential.
        lr_max: of the cosine, largest learning rate.
        lr_min: of the cosine, smallest learning rate.
        lr_period: epochs of the cosine's first period; 0: one period, in which the
            rate falls at each update.
        lr_multiplier: of the cosine, how many times longer each period is than the
            last.
        learning_rate: of the exponential schedule, at the start.
        lr_decay: of the exponential schedule, factor of each fall.
        lr_decay_epochs: of the exponential schedule, epochs between falls.
        clip: of gradients: none, global (the norm of all), norm (that of each array)
            or published_norm, which does nothing.
        clip_bound: largest norm of a gradient; read by clip global and norm.
        l2: weight of the squared parameters.
        keep: probability to keep an input of the classifier.
        drop_path_keep: probability to keep a branch of the last cell at the end;
            shared weights are never dropped, so task search takes 1 alone.
        kernel_rates: multiply the rates of latent kernels by their Glorot factors.
        project: keep latent weights inside the range where they have gradients.
        train_aux_head: whether the auxiliary head's own weights are trained.
        head_range: quantised networks start from classifiers of U(-range, range).
        rescale: multiply gradients of k-bit separable kernels as the published program.
        controller: of searches, train the controller; otherwise architectures stay
            random.
        controller_every: of searches, epochs between the controller's phases.
        controller_updates: of searches, updates of a phase.
        controller_samples: of searches, architectures of an update.
        controller_lr: of searches, rate of the controller's adam, which has no first
            moment.
        controller_l2: of searches, weight of the controller's squared parameters.
        hidden: of searches, size of the controller's LSTM.
        lstm_layers: of searches, layers of the controller's LSTM.
        op_bias: of searches, initial logit of convolutions.
        tanh_constant: of searches, bound of the controller's logits; 0 for none.
        op_tanh_reduce: of searches, what divides that bound for operations.
        temperature: of searches, what divides the logits; 0 for nothing.
        entropy_weight: of searches, weight of the controller's entropy.
        entropy: of searches, where it goes: loss (a bonus with a gradient) or reward
            (a constant).
        baseline: of searches, what is taken from a reward: previous (the mean before
            it) or updated (with it).
        baseline_decay: of searches, of the moving baseline.
        candidates: of searches, architectures that are judged after each phase.
        budget_of: of searches, cost that is limited: none, bits, bit_operations, macs
            or seconds.
        budget: of searches, largest cost without loss of reward.
        budget_weight: of searches, reward that a cost of twice the budget loses.
        random_cells: of task study, random architectures of equal cost.
        study_seeds: of task study, seeds of the best architecture.
        study_epochs: of task study, epochs of every training but the search.
        batch_size: images of an update.
        eval_batch: images of a pass that is judged.
        epochs: passes over the training set; of task study, those of its search.
        steps: updates in all; 0 means whole epochs.
        eval_every: epochs between evaluations.
        log_every: updates between records.
        checkpoint_every: epochs between checkpoints.
        compat: data, schedule and evaluation as in the published program; presets of
            experiments set the other differences one by one.
        seed: base of all random streams.
    """

    task: Literal["search", "fixed", "study"] = "search"
    dataset: str = "mnist"
    train_dir: str = ""
    valid_dir: str = ""
    test_dir: str = ""
    image_size: int = 0
    channels: int = 0
    valid_size: int = -1
    copies: int = 1
    augment: str = "none"
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    cutout_anchor: str = "corner"
    architecture: str = ""
    layers: int = 2
    blocks: int = 0
    filters: int = 20
    pool_positions: tuple[str, ...] = ("quarter",)
    stride_inside: bool = True
    aux_head: bool = False
    policy: str = "deployable"
    bits: int = 4
    choices: tuple[str, ...] = ()
    high: float | str = 1.0
    loss: str = "squared_hinge"
    optimizer: str = "adam"
    beta1: float = 0.9
    epsilon: float = traced(1e-8)
    schedule: str = "cosine"
    lr_max: float = traced(0.01)
    lr_min: float = traced(1e-5)
    lr_period: int = 10
    lr_multiplier: int = 2
    learning_rate: float = traced(0.1)
    lr_decay: float = traced(0.1)
    lr_decay_epochs: int = 100
    clip: str = "none"
    clip_bound: float = traced(5.0)
    l2: float = traced(0.0, zero_is_static=True)
    keep: float = 1.0
    drop_path_keep: float = 1.0
    kernel_rates: bool = True
    project: bool = True
    train_aux_head: bool = True
    head_range: float = 0.1
    rescale: bool = False
    controller: bool = True
    controller_every: int = 1
    controller_updates: int = 30
    controller_samples: int = 10
    controller_lr: float = traced(0.0035)
    controller_l2: float = traced(0.0)
    hidden: int = 64
    lstm_layers: int = 1
    op_bias: float = 0.5
    tanh_constant: float = traced(1.10, zero_is_static=True)
    op_tanh_reduce: float = traced(2.5)
    temperature: float = traced(0.0, zero_is_static=True)
    entropy_weight: float = traced(1e-4)
    entropy: str = "loss"
    baseline: str = "previous"
    baseline_decay: float = traced(0.99)
    candidates: int = 10
    budget_of: str = "none"
    budget: float = traced(0.0, zero_is_static=True)
    budget_weight: float = traced(1.0)
    random_cells: int = 8
    study_seeds: int = 3
    study_epochs: int = 40
    batch_size: int = 128
    eval_batch: int = 100
    epochs: int = 150
    steps: int = 0
    eval_every: int = 1
    log_every: int = 25
    checkpoint_every: int = 1
    compat: bool = False
    seed: int = traced(1)

    def __post_init__(self):
        check_choices(
            self,
            dataset=data.SETS,
            augment=("none", *augmentation.CHANGES),
            cutout_anchor=("corner", "centre"),
            policy=policy.PRESETS,
            loss=LOSSES,
            optimizer=optimizer.OPTIMIZERS,
            schedule=optimizer.SCHEDULES,
            clip=optimizer.CLIPS,
            entropy=controller.ENTROPIES,
            baseline=controller.BASELINES,
            budget_of=COSTS,
        )
        _check_numbers(self)
        _check_task(self)


def _check_numbers(config: Config) -> None:
    positive = ("batch_size", "eval_batch", "epochs", "eval_every", "log_every")
    check_ranges(config, *positive, "checkpoint_every", "copies", low=1)
    check_ranges(config, "lr_multiplier", "lr_decay_epochs", low=1)
    check_ranges(config, "lr_period", low=0)
    check_ranges(config, "controller_every", "controller_updates", low=1)
    check_ranges(config, "controller_samples", "candidates", low=1)
    check_ranges(config, "study_seeds", "study_epochs", low=1)
    check_ranges(config, "steps", "crop", "cutout", "blocks", "random_cells", low=0)
    check_ranges(config, "valid_size", low=-1)
    above = ("lr_max", "learning_rate", "lr_decay", "clip_bound", "epsilon")
    above += ("head_range",)
    check_ranges(config, *above, low=0, low_open=True)
    check_ranges(config, "lr_min", "l2", "budget", "budget_weight", low=0)
    check_ranges(config, "beta1", low=0, high=1, high_open=True)
    check_ranges(config, "keep", "drop_path_keep", low=0, high=1, low_open=True)
    check_ranges(config, "seed", low=0, high=2**31 - 1)
    # What the parts check for themselves.
    found = parts.quant_policy(config)
    if config.task == "study" or config.budget_of == "seconds":
        # Networks will be exported.
        for own in (*found.cells, *found.choices):
            policy.activation_kind(own.activations)
    parts.controller_settings(config)
    parts.positions(config)


def _check_task(config: Config) -> None:
    if config.task == "fixed" and not config.architecture:
        allowed = "an architecture for task fixed, 8 integers for each block"
        raise UsageError("architecture", "", allowed)
    if config.task != "fixed" and config.architecture:
        hint = "A search finds architectures; set --task fixed to train this one."
        raise UsageError("architecture", config.architecture, "none", hint)
    if config.architecture:
        parts.architecture(config)
    if config.task == "search" and config.drop_path_keep != 1:
        hint = "Networks of one architecture drop paths, shared weights do not."
        raise UsageError("drop_path_keep", config.drop_path_keep, "1 in a search", hint)
    if config.task != "fixed" and config.valid_size == 0:
        allowed = "-1 or at least 1, to judge architectures on"
        raise UsageError("valid_size", 0, allowed)
    if (config.budget_of == "none") != (config.budget == 0):
        given = f"{config.budget:g} of {config.budget_of}"
        raise UsageError("budget", given, "both a budget and what it is of, or neither")
    folders = (config.train_dir, config.test_dir)
    if any((*folders, config.valid_dir)) and not all(folders):
        missing = "train_dir" if not config.train_dir else "test_dir"
        raise UsageError(
            missing, "", "a folder or zip archive, as for the other splits"
        )


def changed(config: Config, **changes: Any) -> Config:
    """Return a config with other values."""
    return dataclasses.replace(config, **changes)
