"""Settings of a run."""

from dataclasses import dataclass
from typing import Any

from multipath.routing_networks.algorithms import ALGORITHMS
from multipath.routing_networks.losses import MODULE_LOSSES
from multipath.routing_networks.rewards import FINALS
from multipath.routing_networks.settings import STORAGES
from shared.config import check_choices, check_ranges, traced
from shared.errors import UsageError, check_choice

DATASETS = (
    "mnist_mtl",
    "cifar100_mtl",
    "digits_mtl",
    "digits_mtl_permuted",
    "conflict",
    "scan",
)
ROUTED = (
    "routed_all_fc",
    "dispatched",
    "per_decision_single_agent",
    "paper_large",
    "recursive",
)
"""Models that take decisions."""

BASELINES = (
    "per_task_all_fc",
    "per_task_1_fc",
    "shared",
    "shared_one_hot",
    "separate",
    "soft_mixture",
    "cross_stitch",
    "fixed",
)
LANGUAGE = ("recursive", "fixed")
"""Models of commands."""

VALUE_BASED = (
    "qlearning",
    "sarsa",
    "advantage",
    "bootstrap_advantage",
    "surprise",
)
"""Algorithms without a policy."""

EXPLORING = (*VALUE_BASED, "egreedy_reinforce", "egreedy_aac", "gumbel")
"""Algorithms that heed the exploration."""

TEMPERED = ("reinforce", "actor_critic", "relax")
"""Algorithms whose temperature the exploration can set."""

SIZED = (*ROUTED, "soft_mixture", "shared_one_hot", "fixed")
"""Models that have modules, or are as large as one that has."""

DECIDING = (
    *("detach", "compat", "history", "rho", "window", "final_reward", "normalise"),
    *("gamma", "exploration", "exploration_end"),
    *("routing_optimizer", "routing_lr", "routing_from"),
)
"""Settings that are of no account without decisions."""

OPTIMIZERS = ("sgd", "rmsprop", "adam")
HISTORIES = ("zero", "collaboration", "running_average")
CLIPS = ("all", "groups", "modules")


@dataclass(frozen=True)
class Config:
    """One training run of a routing network or of a baseline.

    Attributes:
        dataset: mnist_mtl, cifar100_mtl, digits_mtl, digits_mtl_permuted, conflict (two
            pairs of opposed linear tasks) or scan (commands).
        labels: how fine labels of CIFAR-100 become those of a task: rank, or the
            published mod5.
        standardise: images have mean 0 and variance 1 per channel; otherwise 0 to 255.
        balance: as many positive as negative examples in one-versus-rest tasks.
        per_task: training examples of each task; 0 means all.
        tasks: how many of the tasks, from the first on; 0 means all.
        valid_fraction: part of each task's training examples that is held out.
        longest: most actions that a command may mean.
        model: routed_all_fc, dispatched, per_decision_single_agent or paper_large; or
            a baseline: per_task_all_fc, per_task_1_fc, shared, shared_one_hot,
            separate, soft_mixture or cross_stitch. For scan: recursive, or the
            baseline fixed.
        algorithm: how decisions are learnt; baselines have none.
        mode: of gumbel: whether its gradient comes from the module selected or from
            all (full).
        temper: whether exploration e sets the temperature 0.1 + 9.9 e of reinforce,
            actor_critic and relax, which else is 1 and for relax 0.5.
        modules: to choose from in each layer; 0 means as many as tasks.
        agents: of each decision under a dispatcher; 0 means as many as tasks.
        depth: routed layers; of a recursive router, the most modules in a row.
        width: units of a hidden layer.
        storage: approximate or tabular; "" means as the model has it.
        router_hidden: hidden layers of approximate policies.
        tell_task: whether one agent, or a dispatcher, sees the task beside the
            features.
        detach: whether routers leave the layers below alone.
        compat: the formulas of the published program instead of the corrected ones.
        history: per-action reward: zero, collaboration or running_average.
        rho: its weight.
        window: actions that it remembers.
        final_reward: neg_loss, or correct: 1 or -1.
        normalise: scale per-action rewards by the size of the final one.
        module_loss: squared (on one-hot targets, summed) or cross_entropy.
        gamma: discount.
        exploration: at the start: how often value-based algorithms act at random and
            ε-greedy ones follow their policy; what sets a temperature.
        exploration_end: at the end; in between it falls linearly.
        entropy_bonus: weight of the entropy of policies.
        balance_loss: weight of the load-balancing loss over modules.
        z_loss: weight of the squared log-sum-exp of policies' scores.
        optimizer: sgd, rmsprop or adam, of the modules.
        routing_optimizer: of the decisions; "" means the same.
        lr: learning rate of the modules.
        lr_epochs: epochs from which `lr_factors` hold instead of 1.
        lr_factors: factors of both learning rates.
        routing_lr: learning rate of the decisions as a share of that of the modules.
        clip: greatest norm of the gradient; 0 means any.
        clip_over: all parameters, the two groups apart, or the modules alone.
        routing_from: epochs before which decisions do not learn.
        modules_until: epochs after which modules no longer learn; 0 means never.
        batch: examples of an update.
        epochs: passes through the training examples.
        updates: in place of `epochs` if not 0.
        eval_every: epochs between evaluations.
        eval_rows: examples of each set that they are made on; 0 means all.
        checkpoint_every: updates between checkpoints; 0 means an epoch.
        seed: base of all random streams.
    """

    dataset: str = "digits_mtl"
    labels: str = "rank"
    standardise: bool = True
    balance: bool = False
    per_task: int = 0
    tasks: int = 0
    valid_fraction: float = 0.1
    longest: int = 48
    model: str = "routed_all_fc"
    algorithm: str = "reinforce"
    mode: str = "selected"
    temper: bool = False
    modules: int = 0
    agents: int = 0
    depth: int = 3
    width: int = 48
    storage: str = ""
    router_hidden: tuple[int, ...] = ()
    tell_task: bool = False
    detach: bool = True
    compat: bool = False
    history: str = "collaboration"
    rho: float = 0.3
    window: int = 256
    final_reward: str = "neg_loss"
    normalise: bool = True
    module_loss: str = "squared"
    gamma: float = traced(1.0)
    exploration: float = traced(0.1)
    exploration_end: float = traced(0.1)
    entropy_bonus: float = traced(0.0, zero_is_static=True)
    balance_loss: float = traced(0.0, zero_is_static=True)
    z_loss: float = traced(0.0, zero_is_static=True)
    optimizer: str = "sgd"
    routing_optimizer: str = ""
    lr: float = traced(0.003)
    lr_epochs: tuple[int, ...] = (5, 10)
    lr_factors: tuple[float, ...] = (1 / 3, 0.1)
    routing_lr: float = traced(0.3)
    clip: float = traced(40.0)
    clip_over: str = "all"
    routing_from: int = 0
    modules_until: int = 0
    batch: int = 10
    epochs: int = 50
    updates: int = 0
    eval_every: int = 1
    eval_rows: int = 0
    checkpoint_every: int = 0
    seed: int = traced(1)

    def __post_init__(self):
        check_choices(
            self,
            dataset=DATASETS,
            labels=("rank", "mod5"),
            model=(*ROUTED, *BASELINES),
            storage=("", *STORAGES),
            mode=("selected", "full"),
            history=HISTORIES,
            final_reward=FINALS,
            module_loss=MODULE_LOSSES,
            optimizer=OPTIMIZERS,
            routing_optimizer=("", *OPTIMIZERS),
            clip_over=CLIPS,
        )
        if self.model in ROUTED:
            check_choice("algorithm", self.algorithm, ALGORITHMS)
        elif self.algorithm:
            allowed = f'"", since the model {self.model} takes no decisions'
            raise UsageError("algorithm", self.algorithm, allowed)
        _check_idle(self)
        check_ranges(self, "longest", low=1, high=48)
        check_ranges(self, "depth", low=1, high=16)
        check_ranges(self, "width", "window", "batch", "epochs", "eval_every", low=1)
        check_ranges(
            self,
            *("per_task", "tasks", "modules", "agents", "updates", "eval_rows"),
            *("checkpoint_every", "routing_from", "modules_until"),
            *("rho", "entropy_bonus", "balance_loss", "z_loss", "routing_lr", "clip"),
            low=0,
        )
        check_ranges(self, "lr", low=0, low_open=True)
        check_ranges(self, "valid_fraction", low=0, high=0.9)
        check_ranges(self, "gamma", "exploration", "exploration_end", low=0, high=1)
        check_ranges(self, "router_hidden", low=1)
        check_ranges(self, "seed", low=0, high=2**31 - 1)
        if len(self.lr_epochs) != len(self.lr_factors):
            allowed = f"{len(self.lr_epochs)} numbers, one for each of lr_epochs"
            raise UsageError("lr_factors", self.lr_factors, allowed)
        if list(self.lr_epochs) != sorted(set(self.lr_epochs)):
            raise UsageError("lr_epochs", self.lr_epochs, "rising numbers")
        if (self.dataset == "scan") != (self.model in LANGUAGE):
            allowed = "recursive or fixed for scan, and no other data set"
            raise UsageError("model", self.model, allowed)
        if self.dataset == "conflict":
            check_choice("module_loss", self.module_loss, ("squared",))
            check_choice("final_reward", self.final_reward, ("neg_loss",))
        if self.compat and self.detach is False and self.algorithm == "relax":
            allowed = "true, as the published program needs for relax"
            raise UsageError("detach", self.detach, allowed)


def storage_of(settings: Any) -> str:
    """Return how policies are stored: one agent for all tasks has to see the input."""
    one = settings.model == "per_decision_single_agent"
    return settings.storage or ("approximate" if one else "tabular")


def _can_see_task(config: Config) -> bool:
    """Whether a network has a decision that sees features, and is no task's own."""
    if config.model == "dispatched":
        return not config.compat
    one = config.model == "per_decision_single_agent"
    return one and storage_of(config) == "approximate"


def _check_idle(config: Config) -> None:
    """Refuse settings that would do nothing, each with what they would need."""
    algorithm, tabular = config.algorithm, storage_of(config) == "tabular"
    who = algorithm or config.model
    by_table = algorithm == "wpl" and tabular and not config.compat
    if config.z_loss and algorithm == "wpl":
        raise UsageError("z_loss", config.z_loss, "0 for wpl, which records no scores")
    without = algorithm in ("", *VALUE_BASED)
    for name in ("entropy_bonus", "balance_loss", "z_loss"):
        if getattr(config, name) and (without or by_table):
            reason = (
                "whose tables are no parameters" if by_table else "without a policy"
            )
            raise UsageError(name, getattr(config, name), f"0 for {who}, {reason}")
    explores = algorithm in EXPLORING or config.temper
    if config.exploration != config.exploration_end and not explores:
        allowed = f"the same number, since {who} does not heed it"
        if algorithm in TEMPERED:
            allowed += " unless temper is true"
        given = f"from {config.exploration} to {config.exploration_end}"
        raise UsageError("exploration", given, allowed)
    idle = {
        "temper": (algorithm not in TEMPERED, f"false for {who}"),
        "mode": (algorithm != "gumbel", f"selected for {who}"),
        "router_hidden": (tabular, "() for tables"),
        "storage": (config.model not in (*ROUTED, "shared_one_hot"), f'"" for {who}'),
        "tell_task": (not _can_see_task(config), f"false for {who}"),
        "agents": (config.model != "dispatched", f"0 for {config.model}"),
        "modules": (config.model not in SIZED, f"0 for {config.model}"),
        "labels": (config.dataset != "cifar100_mtl", f"rank for {config.dataset}"),
    }
    plain = Config.__dataclass_fields__
    if config.model not in ROUTED:
        why = f"for {who}, which takes no decisions"
        idle |= {name: (True, f"{plain[name].default!r} {why}") for name in DECIDING}
    elif config.history == "zero":
        for name in ("rho", "window", "normalise"):
            idle[name] = (True, f"{plain[name].default!r} without a history")
    for name, (useless, allowed) in idle.items():
        if useless and getattr(config, name) != plain[name].default:
            raise UsageError(name, getattr(config, name), allowed)
