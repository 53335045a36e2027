"""The table of experiments, their scales, and settings that are refused."""

import pytest

from multipath.trees.config import K_CPTS, Config, channels, network
from multipath.trees.experiments import EXPERIMENTS, scaled
from multipath.trees.net import operations
from shared.config import from_dict, split, to_dict
from shared.errors import UsageError
from shared.sweep import group

PUBLISHED = (
    *("hybrid-sr", "hybrid-ac", "hybrid-ac-nokdec", "hybrid-ac-notalr"),
    *("hybrid-ac-tree", "hybrid-cr", "hybrid-cr-opt", "hybrid-cr-clserr"),
    *("hybrid-cr-notalr", "cifar2-sr", "cifar2-ac", "cifar5-sr", "cifar5-ac"),
    *("cifar10-sr", "cifar10-ac", "hybrid-ac-dynkcpt", "hybrid-ac-tree-dynkcpt"),
    *("hybrid-cr-dynkcpt", "hybrid-cr-tree-dynkcpt"),
)
SCALES = ("smoke", "small")
MORE = ("cifar10-sr-fat", "cifar10-ac-fat", "cifar10-sr-fatter", "cifar10-ac-fatter")


@pytest.mark.parametrize("name", [*PUBLISHED, *MORE, "hybrid-ac-globopt"])
def test_published_experiments_have_the_published_settings(name):
    configs = EXPERIMENTS[name].configs
    first = configs[0]
    assert (first.n_iter, first.batch, first.t_log) == (80_000, 128, 2500)
    assert (first.lr, first.lr_half, first.tau_half) == (0.1, 10_000, 20_000)
    assert first.tau == (0.1 if first.family == "critic" else 1.0)
    assert len(configs) == (1 if first.dyn_k_cpt else 8)
    if first.family == "sr":
        assert [c.depth for c in configs] == list(range(1, 9))
    elif not first.dyn_k_cpt:
        scale = first.width**2
        assert [c.k_cpt * scale for c in configs] == pytest.approx(list(K_CPTS))
        # Prices are traced: one program for all of them.
        assert len(group(configs)) == 1


def test_the_paper_trained_153_networks():
    """Of adaptive nets the actor chain alone, and not the regularised policy."""
    names = [*PUBLISHED, *MORE]
    left_out = {"hybrid-ac-tree-dynkcpt", "hybrid-cr-dynkcpt", "hybrid-cr-tree-dynkcpt"}
    counts = [len(EXPERIMENTS[n].configs) for n in names if n not in left_out]
    assert sum(counts) == 153


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *((name, s) for name in ("hybrid-ac", "cifar10-ac-fat") for s in SCALES),
        ("digits-cr", "smoke"),
    ],
)
def test_scales_keep_schedules_and_price_times_operations(name, scale):
    config = EXPERIMENTS[name].configs[-1]
    small = scaled(config, scale)
    ratio = small.n_iter / config.n_iter
    assert small.n_iter < config.n_iter and small.t_log <= small.n_iter
    assert small.lr_half / config.lr_half == pytest.approx(ratio)
    assert small.tau_half / config.tau_half == pytest.approx(ratio)
    image = (8, 8, 1) if config.dataset == "digits" else (32, 32, 3)
    costs = [
        c.k_cpt * sum(operations(network(c, image, 10))[0]) for c in (config, small)
    ]
    assert costs[1] == pytest.approx(costs[0], rel=0.4)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_configs_come_back_from_their_files(name):
    for config in EXPERIMENTS[name].configs:
        assert from_dict(Config, to_dict(config)) == config
        static, hyper = split(config)
        hash(static)
        assert {"k_cpt", "lr", "tau", "seed"} <= set(hyper)


def test_width_multiplies_the_channels():
    assert channels(Config(arch=("4,2", "3"), width=2)) == ((8, 4), (6,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k_cpt": -1e-9}, "k_cpt: got -1e-09, expected a number >= 0"),
        ({"tau": 0.0}, "tau: got 0.0, expected a number > 0"),
        ({"eps": 1.5}, "eps: got 1.5"),
        ({"eps": -0.1}, "eps: got -0.1"),
        ({"k_cpts": (1.0, -1.0)}, "k_cpts: got -1.0"),
        ({"arch": ("16;16",)}, "arch: .*numbers separated by commas"),
        ({"arch": ("0",)}, "arch: .*at least one channel"),
        ({"depth": 9, "family": "sr"}, "depth: got 9"),
        ({"depth": 2}, "depth: got 2, expected 0"),
        ({"family": "sr", "topology": "tree"}, "family: got 'sr'"),
        ({"dataset": "imagenet"}, "dataset: got 'imagenet'"),
        ({"mu": 1.0}, "mu: got 1.0"),
        ({"dyn_k_cpt": True, "k_cpts": ()}, "k_cpts: .*at least one price"),
        ({"dyn_k_cpt": True, "k_cpt": 1e-9}, "k_cpt: got 1e-09, expected 0 with dyn_k"),
        (
            {"optimistic": True},
            "optimistic: got True, expected False for actor: only c",
        ),
        ({"use_cls_err": True}, "use_cls_err: got True"),
        ({"family": "critic", "stop_grad_p": False}, "stop_grad_p: .*only actors"),
        ({"family": "sr", "k_cpt": 1e-9}, "k_cpt: .*only actors and critics"),
        ({"family": "sr", "talr": False}, "talr: got False"),
        ({"family": "sr", "optimistic": True}, "optimistic: got True"),
        ({"arch": ()}, "arch: .*at least one scale"),
        ({"arch": ("4", "4,4")}, "arch: .*never more than before"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Config(**changes)
