"""Settings of a run."""

from dataclasses import dataclass

from multipath.trees import graph
from multipath.trees.net import FAMILIES, Net
from shared.config import check_choices, check_ranges, traced
from shared.errors import UsageError

DATASETS = (
    "hybrid",
    "cifar10",
    "cifar5",
    "cifar2",
    "mnist",
    "digits",
    "digits-hybrid",
)
TOPOLOGIES = ("chain", "tree")
K_CPTS = (0.0, 1e-9, 2e-9, 4e-9, 8e-9, 1.6e-8, 3.2e-8, 6.4e-8)
"""The published prices of an operation."""

ARCH = tuple(",".join(map(str, channels)) for channels in graph.ARCH)


@dataclass(frozen=True)
class Config:
    """One training run of a multipath network.

    Attributes:
        dataset: hybrid, cifar10, cifar5, cifar2, mnist, digits or digits-hybrid.
        family: sr (statically routed), actor or critic.
        topology: chain, or tree, which also goes left or right at its first depths.
        depth: transformations of a statically routed net; 0 means all.
        arch: for each transformation the channels of its scales, fine to coarse,
            separated by commas.
        width: what all channels are multiplied by.
        conv_supp: width of the windows of convolutions.
        router_n_chan: hidden units of a router's layers.
        k_l2: weight of the squared weights.
        k_cpt: price of an operation.
        dyn_k_cpt: the price is an input of each image, drawn from `k_cpts`.
        k_cpts: the prices of an adaptive network.
        alpha_cpt: scale of the price as an input of routers.
        k_dec: an actor's weight of squared scores.
        stop_grad_p: whether costs of complexity and of decisions leave an actor's
            policy alone.
        k_cre: a critic's weight of errors of its predictions.
        optimistic: critics predict the cost of the best choices, not of their own.
        use_cls_err: critics predict classification errors, not cross-entropies.
        eps: probability of a leaf chosen evenly in training.
        tau: temperature of the training policy at the start.
        tau_half: updates in which it halves.
        talr: throughput-adjusted learning rates.
        alpha_rtr: factor of the routers' learning rate.
        lr: learning rate at the start.
        lr_half: updates in which it halves.
        mu: momentum.
        batch: images of an update.
        n_iter: updates.
        t_log: updates between logs of the statistics.
        eval_rows: images of each set that they are taken over, evenly spread; 0
            means all.
        checkpoint_every: updates between checkpoints; 0 means at each log.
        shift: pixels by which training images move at most.
        valid_fraction: part of the training set that is held out.
        seed: base of all random streams.
    """

    dataset: str = "hybrid"
    family: str = "actor"
    topology: str = "chain"
    depth: int = 0
    arch: tuple[str, ...] = ARCH
    width: int = 1
    conv_supp: int = 3
    router_n_chan: int = 16
    k_l2: float = 1e-4
    k_cpt: float = traced(0.0)
    dyn_k_cpt: bool = False
    k_cpts: tuple[float, ...] = K_CPTS
    alpha_cpt: float = traced(1e7)
    k_dec: float = traced(0.01)
    stop_grad_p: bool = True
    k_cre: float = traced(1e-3)
    optimistic: bool = False
    use_cls_err: bool = False
    eps: float = traced(1e-6)
    tau: float = traced(1.0)
    tau_half: float = traced(20_000.0)
    talr: bool = True
    alpha_rtr: float = traced(1.0)
    lr: float = traced(0.1)
    lr_half: float = traced(10_000.0)
    mu: float = traced(0.9)
    batch: int = 128
    n_iter: int = 80_000
    t_log: int = 2500
    eval_rows: int = 0
    checkpoint_every: int = 0
    shift: int = 4
    valid_fraction: float = 0.0
    seed: int = traced(1)

    def __post_init__(self):
        check_choices(self, dataset=DATASETS, family=FAMILIES, topology=TOPOLOGIES)
        check_ranges(self, "depth", low=0, high=len(channels(self)))
        check_ranges(self, "width", "conv_supp", "router_n_chan", low=1)
        check_ranges(self, "batch", "n_iter", "t_log", low=1)
        check_ranges(self, "shift", "eval_rows", "checkpoint_every", low=0)
        check_ranges(self, "k_l2", "k_cpt", "k_cpts", "k_dec", "k_cre", low=0)
        check_ranges(self, "alpha_cpt", "alpha_rtr", low=0)
        check_ranges(self, "tau", "tau_half", "lr", "lr_half", low=0, low_open=True)
        check_ranges(self, "eps", low=0, high=1)
        check_ranges(self, "mu", low=0, high=1, high_open=True)
        check_ranges(self, "valid_fraction", low=0, high=0.9)
        check_ranges(self, "seed", low=0, high=2**31 - 1)
        if self.dyn_k_cpt and not self.k_cpts:
            raise UsageError("k_cpts", self.k_cpts, "at least one price")
        static = self.family == "sr"
        if static and (self.topology == "tree" or self.dyn_k_cpt):
            raise UsageError("family", "sr", "actor or critic for trees and dyn_k_cpt")
        if self.depth and not static:
            raise UsageError("depth", self.depth, "0, except for the family sr")
        if self.dyn_k_cpt and self.k_cpt:
            raise UsageError("k_cpt", self.k_cpt, "0 with dyn_k_cpt: k_cpts has prices")
        for name, families in _ONLY.items():
            default = getattr(Config, name)
            if self.family not in families and getattr(self, name) != default:
                allowed = f"{default} for {self.family}: only {_told(families)} use it"
                raise UsageError(name, getattr(self, name), allowed)


# Who takes notice of options that others would ignore.
_ONLY = {
    "k_cpt": ("actor", "critic"),
    "talr": ("actor", "critic"),
    "stop_grad_p": ("actor",),
    "optimistic": ("critic",),
    "use_cls_err": ("critic",),
}


def _told(families: tuple[str, ...]) -> str:
    return " and ".join(f"{family}s" for family in families)


def channels(config: Config) -> tuple[tuple[int, ...], ...]:
    """Return the channels of each scale of each transformation, widened.

    Raises:
        UsageError: for an arch that is no list of numbers, is empty, or grows.
    """
    try:
        arch = [tuple(int(n) for n in entry.split(",")) for entry in config.arch]
    except ValueError:
        allowed = "numbers separated by commas, as 16,16,16"
        raise UsageError("arch", config.arch, allowed) from None
    if any(n < 1 for entry in arch for n in entry):
        raise UsageError("arch", config.arch, "at least one channel a scale")
    graph.check_arch(tuple(arch))
    return graph.widened(tuple(arch), config.width)


def network(config: Config, image: tuple[int, int, int], classes: int) -> Net:
    """Return the network of a config for images of some shape.

    Args:
        config: its static part suffices.
        image: height, width and channels.
        classes: number of classes.

    Raises:
        UsageError: for images that its scales do not divide.
    """
    blocks = graph.Blocks(
        classes=classes,
        arch=channels(config),
        conv_supp=config.conv_supp,
        router_n_chan=config.router_n_chan,
        k_l2=config.k_l2,
    )
    if config.family == "sr":
        root = graph.sr_chain(blocks, config.depth or len(blocks.arch))
    else:
        build = graph.dr_tree if config.topology == "tree" else graph.dr_chain
        root = build(blocks)
    return Net(
        config.family,
        root,
        image,
        classes,
        dyn_k_cpt=config.dyn_k_cpt,
        optimistic=config.optimistic,
        use_cls_err=config.use_cls_err,
        talr=config.talr,
        stop_grad_p=config.stop_grad_p,
    )
