"""Settings of a run."""

from dataclasses import dataclass

from gaitprop.inverse import SOLVERS
from gaitprop.layers import INITIALISERS
from gaitprop.networks import FIRST_LAYERS, LOSSES, REDUCTIONS
from gaitprop.optimizer import OPTIMIZERS
from gaitprop.propagation import FORMS, INVERSES
from gaitprop.regulariser import ORTHO_TARGETS
from gaitprop.rules import RULES
from gaitprop.transfer import TRANSFERS
from shared.config import check_choices, check_ranges, traced
from shared.errors import UsageError

PIXELS = {"digits": 64, "mnist": 784, "fashion_mnist": 784, "kmnist": 784}


@dataclass(frozen=True)
class Config:
    """One training run of an invertible network.

    Attributes:
        dataset: digits, mnist, fashion_mnist or kmnist.
        widths: layer widths from the input on; equal widths make the square network,
            falling ones a tower. The last is at least `classes`.
        classes: number of classes, read from the first output units.
        transfer: leaky_relu or linear, in every layer.
        leaky_slope: slope of the leaky ReLU below zero.
        algorithm: learning rule.
        form: difference (no cancellation) or subtract (the published arithmetic).
        inverse: exact; learned alongside the network from the exact one on; or
            learned_random, from random matrices on.
        solver: how the exact inverse of a kernel is applied to errors.
        tolerance: largest relative residual that the solver refine leaves.
        gamma: size of GAIT-prop's nudge towards the target; 0 takes the limit.
        ortho_weight: strength of the orthogonality regulariser; 0 leaves it out.
        ortho_target: offdiag (rows orthogonal) or identity (rows orthonormal).
        loss: squared, or cross_entropy on the softmax of the class units.
        reduction: mean or sum over the images of a batch.
        linear_output: leave the transfer function out in the last layer.
        first_layer: square, or rectangular (it is never inverted, reads all inputs,
            and may have more units than there are inputs or fewer).
        init: orthogonal or glorot_normal kernels.
        optimizer: adam_nodebias (as published), adam or sgd.
        learning_rate: step size.
        beta1: decay of Adam's first moment.
        beta2: decay of Adam's second moment.
        eps: Adam's epsilon, outside the root.
        batch_size: images of one update.
        epochs: passes over the training set.
        steps: updates in all; 0 means whole epochs.
        eval_every: updates between evaluations; 0 means once an epoch.
        eval_train_rows: training images evaluated; 0 means all.
        checkpoint_every: updates between checkpoints; 0 means once an epoch.
        shuffle: a new order each epoch instead of the order of the files.
        valid_size: images held out from the end of the training set.
        diagnose: record angles to BP, orthogonality and condition numbers of the
            layers with each evaluation.
        seed: base of all random streams.
    """

    dataset: str = "mnist"
    widths: tuple[int, ...] = (784, 784, 784)
    classes: int = 10
    transfer: str = "leaky_relu"
    leaky_slope: float = 0.1
    algorithm: str = "bp"
    form: str = "difference"
    inverse: str = "exact"
    solver: str = "refine"
    tolerance: float = traced(1e-5)
    gamma: float = traced(1e-3, zero_is_static=True)
    ortho_weight: float = traced(0.0, zero_is_static=True)
    ortho_target: str = "offdiag"
    loss: str = "squared"
    reduction: str = "mean"
    linear_output: bool = False
    first_layer: str = "square"
    init: str = "orthogonal"
    optimizer: str = "adam_nodebias"
    learning_rate: float = traced(1e-4)
    beta1: float = traced(0.9)
    beta2: float = traced(0.99)
    eps: float = traced(1e-8)
    batch_size: int = 60
    epochs: int = 100
    steps: int = 0
    eval_every: int = 0
    eval_train_rows: int = 0
    checkpoint_every: int = 0
    shuffle: bool = False
    valid_size: int = 0
    diagnose: bool = True
    seed: int = traced(1)

    def __post_init__(self):
        check_choices(
            self,
            dataset=PIXELS,
            algorithm=RULES,
            transfer=TRANSFERS,
            form=FORMS,
            inverse=INVERSES,
            solver=SOLVERS,
            ortho_target=ORTHO_TARGETS,
            loss=LOSSES,
            reduction=REDUCTIONS,
            first_layer=FIRST_LAYERS,
            init=INITIALISERS,
            optimizer=OPTIMIZERS,
        )
        check_ranges(self, "leaky_slope", "tolerance", low=0, high=1, low_open=True)
        check_ranges(self, "gamma", low=0, high=1)
        check_ranges(self, "learning_rate", "eps", low=0, low_open=True)
        check_ranges(self, "beta1", "beta2", low=0, high=1, high_open=True)
        check_ranges(self, "batch_size", "epochs", "classes", low=1)
        check_ranges(self, "ortho_weight", "steps", "valid_size", low=0)
        check_ranges(self, "eval_every", "eval_train_rows", "checkpoint_every", low=0)
        check_ranges(self, "seed", low=0, high=2**31 - 1)
        _check_widths(self)
        if self.form == "subtract" and self.gamma == 0 and self.algorithm != "tp":
            raise UsageError("gamma", 0, "> 0 with form subtract")


def _check_widths(config: Config) -> None:
    widths, pixels = config.widths, PIXELS[config.dataset]
    # A rectangular first layer may have more units than inputs.
    falling = widths[1:] if config.first_layer == "rectangular" else widths
    steps = zip(falling, falling[1:], strict=False)
    if len(widths) < 2 or any(b > a for a, b in steps):
        raise UsageError("widths", widths, "two or more widths that never grow")
    if widths[0] != pixels:
        raise UsageError("widths", widths, f"{pixels} first, the pixels of an image")
    if widths[-1] < config.classes:
        raise UsageError(
            "widths", widths, f"a last width >= classes ({config.classes})"
        )
