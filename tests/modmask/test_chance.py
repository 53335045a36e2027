"""Chance levels against random masks that are really drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modmask import chance, statistics
from shared.errors import UsageError

DRAWS = 150


def stage(kept, size=40):
    """Return masks that keep the first weights of two parameters."""
    return {
        "kernel": jnp.arange(size) < kept,
        "bias": jnp.arange(size // 2) < kept // 3,
    }


@pytest.fixture(scope="module")
def stages():
    """A control and three sub-functions of different densities."""
    return {"all": stage(30), "a": stage(20), "b": stage(12), "c": stage(9)}


@pytest.fixture(scope="module")
def drawn(stages):
    """Figures on random masks in the place of these."""
    one = jax.jit(statistics.random_masks)
    figures = []
    for i in range(DRAWS):
        keys = jax.random.split(jax.random.key(i), len(stages))
        masks = {
            name: one(key, own)
            for key, (name, own) in zip(keys, stages.items(), strict=True)
        }
        everything = list(masks.values())
        figures.append(
            statistics.similarity(masks, [("all", "a"), ("b", "c")])
            | statistics.remaining(everything)
            | statistics.sharing(everything[1:])
        )
    return {name: np.array([f[name] for f in figures]) for name in figures[0]}


def test_levels_are_those_of_random_masks(stages, drawn):
    levels = chance.chance(stages)
    names = [name.removeprefix("chance/") for name in levels if "chance/" in name]
    compared = [name for name in names if name in drawn]
    kinds = ("mask_iou/", "mask_iomin/", "mask_remaining/", "mask_stat/")
    for kind in kinds:
        assert any(name.startswith(kind) for name in compared)
    for name in compared:
        error = drawn[name].std() / np.sqrt(DRAWS)
        expected = pytest.approx(drawn[name].mean(), abs=4.5 * error)
        assert levels[f"chance/{name}"] == expected, name
        low, high = (levels[f"chance_{side}/{name}"] for side in ("low", "high"))
        inside = np.mean((low <= drawn[name]) & (drawn[name] <= high))
        # Overlaps are whole numbers, of which the bounds are among the likely ones.
        assert 0.9 <= inside, name
        assert low <= levels[f"chance/{name}"] <= high


def test_means_of_overlaps_are_exact(stages):
    levels = chance.chance(stages, draws=1)
    place = "chance/mask_remaining/layers/weight/remaining_1"
    assert levels[place] == pytest.approx(20 / 40)
    both = 1 - (1 - 12 / 40) * (1 - 9 / 40)
    assert levels["chance/mask_stat/mask_weight/shared_1"] == pytest.approx(both)
    assert levels["chance/mask_iomin/b/c/weight"] == pytest.approx(12 / 40)
    total = (20 * 12 / 40 + 6 * 4 / 20) / (12 + 4)
    assert levels["chance/mask_iomin/a/b/total"] == pytest.approx(total)


def test_masks_that_keep_all_or_nothing_leave_nothing_to_chance():
    full, none = stage(40, 40), jax.tree.map(jnp.zeros_like, stage(1))
    full["bias"] = jnp.ones_like(full["bias"])
    levels = chance.chance({"full": full, "same": full, "none": none})
    for kind in ("chance", "chance_low", "chance_high"):
        assert levels[f"{kind}/mask_iou/full/same/total"] == 1
        assert levels[f"{kind}/mask_iou/full/none/total"] == 0
        assert levels[f"{kind}/mask_stat/all/shared_2"] == 0


def test_what_is_not_asked_for_is_left_out(stages):
    levels = chance.chance(stages, share=False, pairs=[("all", "c")], draws=5)
    assert not any("mask_stat" in name for name in levels)
    pairs = {"/".join(n.split("/")[2:4]) for n in levels if "mask_iou" in n}
    assert pairs == {"all/c"}
    with pytest.raises(UsageError, match="draws"):
        chance.chance(stages, draws=0)


def test_same_seed_same_levels(stages):
    assert chance.chance(stages, seed=3) == chance.chance(stages, seed=3)
    assert chance.chance(stages, seed=3) != chance.chance(stages, seed=4)


def test_chance_of_transfer(stages):
    levels = chance.transfer_chance(stages["a"], stages["all"])
    assert levels["chance/mask_stat/shared/weight"] == pytest.approx(30 / 40)
    low, high = (levels[f"chance_{s}/mask_stat/shared/total"] for s in ("low", "high"))
    assert low < levels["chance/mask_stat/shared/total"] < high
