"""Claim: what a selection chooses is near the best way, and few times dearer at 64.

256 samples go through one of 2, 8, 20 and 64 linear modules of 128 inputs and 48
outputs, forward alone and with gradients by parameters and samples, in random and in
one and the same module:

- the way chosen takes at most 1.2 of the time of the best of gather, grouped and dense;
- 64 modules take at most 5 times as long as the best way takes for 2 modules.

`jax.lax.ragged_dot` is shown for comparison, and so are two perceptrons of different
sizes. Least times of repeats in turn. Exit status 1 if a limit is exceeded.

    python -m benchmarks.routing_selection [--repeats 200] [--batch 256]
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mask_step import least
from multipath.routing_networks import selection, ways
from multipath.routing_networks.selection import Selection, linear_modules
from shared.layers.linear import init_linear, linear
from shared.model import Model, Variables

INPUTS, OUTPUTS = 128, 48
COUNTS = (2, 8, 20, 64)
WAYS = ("gather", "grouped", "dense")
PARTS = ("forward", "gradients")
NEAR, GROWTH = 1.2, 5.0

Run = Callable[[], Any]


def ragged(params: Any, x: jax.Array, actions: jax.Array) -> jax.Array:
    """Apply linear modules by `jax.lax.ragged_dot`."""
    order = jnp.argsort(actions)
    sizes = selection.counts(actions, None, len(params["bias"]))
    y = jax.lax.ragged_dot(x[order], params["kernel"], sizes)
    return y[jnp.argsort(order)] + params["bias"][actions]


def runs(
    apply: Callable, params: Any, x: Any, actions: Any, name: str
) -> dict[str, Run]:
    """Return what applies modules, and what differentiates them as well."""
    loss = lambda params, x, actions: jnp.sum(apply(params, x, actions) ** 2)
    forward, backward = jax.jit(apply), jax.jit(jax.value_and_grad(loss, (0, 1)))
    wait = lambda program: lambda: jax.block_until_ready(program(params, x, actions))
    return {f"{name}, forward": wait(forward), f"{name}, gradients": wait(backward)}


def linear_runs(count: int, batch: int, crowded: bool) -> dict[str, Run]:
    """Return the ways to apply so many linear modules."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, INPUTS)), jnp.float32)
    actions = jnp.zeros(batch, jnp.int32)
    if not crowded:
        actions = jnp.asarray(rng.integers(0, count, batch), jnp.int32)
    params = selection.init(
        jax.random.key(0), linear_modules(count, INPUTS, OUTPUTS)
    ).params
    found = runs(ragged, params, x, actions, "ragged_dot")
    for how in WAYS:
        apply = through(linear_modules(count, INPUTS, OUTPUTS, how=how))
        found |= runs(apply, params, x, actions, how)
    return found


def through(modules: Selection) -> Callable:
    return lambda p, x, a: selection.apply(modules, Variables(p), x, a)[0]


def perceptron(hidden: int) -> Model:
    """Return a Model with one hidden layer."""

    def init(key: jax.Array) -> Variables:
        keys = jax.random.split(key)
        sizes = (INPUTS, hidden), (hidden, OUTPUTS)
        return Variables([init_linear(k, *s) for k, s in zip(keys, sizes, strict=True)])

    def apply(variables, x, *, train=False, key=None):
        first, second = variables.params
        return linear(second, jax.nn.relu(linear(first, x))), variables.state

    return Model(init, apply)


def unequal_runs(count: int, batch: int) -> dict[str, Run]:
    """Return the ways to apply perceptrons of different sizes."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, INPUTS)), jnp.float32)
    actions = jnp.asarray(rng.integers(0, count, batch), jnp.int32)
    modules = tuple(perceptron(32 * (i + 1)) for i in range(count))
    params = selection.init(jax.random.key(0), Selection(modules)).params
    found = {}
    for how in ("grouped", "dense"):
        found |= runs(through(Selection(modules, how=how)), params, x, actions, how)
    return found


def report(title: str, seconds: dict[str, float], part: str, chosen: str):
    """Print a line; return the best way's seconds and those of the way chosen."""
    own = {n.split(",")[0]: s for n, s in seconds.items() if n.endswith(part)}
    best = min(value for name, value in own.items() if name in WAYS)
    times = "  ".join(f"{name} {1e3 * value:6.2f}" for name, value in own.items())
    ratio = f"{chosen} / best {own[chosen] / best:.2f}"
    print(f"{title:23} {part:9} {times} ms  {ratio}", flush=True)
    return best, own[chosen]


def main() -> int:
    """Print the table; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description="Time ways to apply modules.")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    print(f"{options.batch} samples, {INPUTS} -> {OUTPUTS}, {jax.default_backend()}")
    failed = False
    for crowded in (False, True):
        smallest, last = {}, {}
        for count in COUNTS:
            made = linear_runs(count, options.batch, crowded)
            seconds = least(made, options.repeats)
            title = f"{count} modules" + ", one in use" * crowded
            for part in PARTS:
                way = ways.best(count, options.batch)
                best, chosen = report(title, seconds, part, way)
                smallest.setdefault(part, best)
                last[part] = chosen
                failed |= not crowded and chosen > NEAR * best
            jax.clear_caches()
        for part in PARTS:
            ratio = last[part] / smallest[part]
            failed |= ratio > GROWTH
            print(f"{title}, {part}: {ratio:.2f} of 2 modules, limit {GROWTH}")
    for count in (2, 4, 8):
        seconds = least(unequal_runs(count, options.batch), options.repeats)
        way = ways.best(count, options.batch, equal=False)
        for part in PARTS:
            report(f"{count} unequal", seconds, part, way)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
