"""Claim: a step of a shared-weight network costs about what it does in plain PyTorch.

Steps of the published searches (forward, gradients, Adam; batch 128, images 32x32, 20
filters, 3 blocks; 4 bits in the stem and the first cell, the rest ternary), with other
random architectures at every step, the same ones on both sides:

- at most 1.3 of the time of the same network in plain PyTorch, see `enasq_torch`;
- at most 1.5 seconds of CPU time, a quarter of the 6.1 that the published program takes
  on 2 cores for its MNIST search;
- no program is compiled after the first architecture;
- ten architectures evaluated in one program: no slower than ten calls in turn;
- under 60 seconds from the start to the first step, and under 2.8 GiB of memory (that
  of the process before PyTorch is loaded).

Medians of repeats in turn. Exit status 1 if a limit is exceeded. PyTorch is left
out where it is not installed: pip install torch==2.13.0

    python -m benchmarks.enasq_child [--repeats 5] [--only mnist cifar] [--blocks 3]
"""

import argparse
import importlib.util
import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from enasq import cell, losses, optimizer, plan, policy, supernet
from enasq.behaviour import compat
from shared import groups

BATCH, SIZE, FILTERS = 128, 32, 20
SEARCHES = {"mnist": (2, 1), "cifar": (3, 3)}
"""Layers and channels of the published searches."""

ARCHITECTURES = 10
LIMITS = {
    "step / torch": 1.3,
    "CPU seconds of a step": 6.1 / 4,
    "ten in one program / in turn": 1.0,
    "programs of all steps": 1,
    "seconds to the first step": 60.0,
    "peak GiB": 5.6 / 2,
}
RATE = 0.05

Network = plan.Network


def network_of(name: str, blocks: int) -> Network:
    """Return the network of a published search."""
    layers, channels = SEARCHES[name]
    return plan.Network("search", layers, FILTERS, blocks, SIZE, channels)


def batch_of(network: Network) -> tuple[jax.Array, jax.Array]:
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    shape = BATCH, network.size, network.size, network.channels
    images = jnp.asarray(rng.normal(size=shape), jnp.float32)
    return images, jnp.asarray(rng.integers(0, 10, BATCH), jnp.int32)


def architectures(network: Network) -> jax.Array:
    """Return the architectures of all steps."""
    keys = jax.random.split(jax.random.key(7), ARCHITECTURES)
    return jax.vmap(lambda key: cell.random(key, network.blocks))(keys)


class Ours:
    """A network of ours with its optimiser; calls take one step each."""

    def __init__(self, network: Network):
        self.net = supernet.build(network, policy.preset("reference"), compat())
        self.arcs = list(architectures(network))
        self.images, self.labels = batch_of(network)
        self.rule = optimizer.make_optimizer("adam")({"learning_rate": RATE})
        self.variables = jax.jit(self.net.init, compiler_options=groups.ONCE)(
            jax.random.key(0)
        )
        self.state = self.rule.init(self.variables.params)
        self.step = jax.jit(self._step, donate_argnums=(0, 1))
        self.evaluate = jax.jit(lambda v, arc, x: self.net.apply(v, arc, x)[0][0])
        self.evaluate_many = self.net.evaluate_many
        self.count = self.traces = 0

    def _step(self, params: Any, state: Any, arc: Any, images: Any, labels: Any):
        self.traces += 1

        def loss(params):
            variables = self.variables._replace(params=params)
            (logits, _), _ = self.net.apply(variables, arc, images, train=True)
            return losses.loss("published_hinge", logits, labels)

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = self.rule.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    def __call__(self) -> None:
        arc = self.arcs[self.count % len(self.arcs)]
        self.count += 1
        params, self.state, value = self.step(
            self.variables.params, self.state, arc, self.images, self.labels
        )
        self.variables = self.variables._replace(params=params)
        value.block_until_ready()

    def in_turn(self) -> None:
        """Evaluate all architectures by one call each."""
        for arc in self.arcs:
            self.evaluate(self.variables, arc, self.images).block_until_ready()

    def together(self) -> None:
        """Evaluate all architectures by one program."""
        arcs = jnp.stack(self.arcs)
        self.evaluate_many(self.variables, arcs, self.images).block_until_ready()


def torch_step(network: Network, arcs: np.ndarray) -> Callable[[], None]:
    """Return what takes a step of the same network in plain PyTorch."""
    import torch

    from benchmarks.enasq_torch import Supernet

    torch.set_num_threads(min(2, os.cpu_count() or 1))
    torch.manual_seed(0)
    images, labels = (np.array(part) for part in batch_of(network))
    theirs, turns = Supernet(network, images, labels), itertools.cycle(arcs)
    return lambda: theirs(next(turns))


def typical(
    runs: dict[str, Callable[[], Any]], turns: int, repeats: int
) -> dict[str, tuple[float, float]]:
    """Return wall and CPU seconds of one call, medians of repeats in turn.

    Args:
        runs: what to time, by name.
        turns: calls after which a run repeats itself; the mean over them is returned.
        repeats: of all turns.
    """
    found = {name: np.zeros((repeats, turns, 2)) for name in runs}
    for place in np.ndindex(repeats, turns):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            found[name][place] = spent
    middle = {name: np.median(times, 0).mean(0) for name, times in found.items()}
    return {name: (float(wall), float(cpu)) for name, (wall, cpu) in middle.items()}


def measure(name: str, blocks: int, repeats: int) -> dict[str, float]:
    """Return what is limited, of one search."""
    network = network_of(name, blocks)
    start = time.perf_counter()
    ours = Ours(network)
    ours()
    found = {"seconds to the first step": time.perf_counter() - start}
    ours.in_turn()
    ours.together()
    both = {"in turn": ours.in_turn, "together": ours.together}
    times = typical(both, 1, repeats)
    together, in_turn = times["together"][0], times["in turn"][0]
    found["ten in one program / in turn"] = together / in_turn
    runs: dict[str, Callable[[], Any]] = {"ours": ours}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found["peak GiB"] = peak
    if importlib.util.find_spec("torch") is not None:
        runs["torch"] = torch_step(network, np.asarray(architectures(network)))
        # The first of all turns is not timed.
        for _ in range(ARCHITECTURES):
            runs["torch"]()
    ours.count = 0
    steps = typical(runs, ARCHITECTURES, repeats)
    for key, (wall, cpu) in steps.items():
        print(f"{name}, {key}: {1e3 * wall:.1f} ms a step, {1e3 * cpu:.1f} of CPU time")
    print(f"{name}: ten architectures {1e3 * together:.1f} ms in one program,")
    print(f"    {1e3 * in_turn:.1f} in turn")
    found["CPU seconds of a step"] = steps["ours"][1]
    found["programs of all steps"] = ours.traces
    if "torch" in steps:
        found["step / torch"] = steps["ours"][0] / steps["torch"][0]
    return found


def main() -> int:
    """Print the figures; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(
        description="Time steps of shared-weight networks."
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(SEARCHES))
    parser.add_argument("--blocks", type=int, default=3)
    options = parser.parse_args()
    names = options.only or list(SEARCHES)
    if len(names) > 1:
        # Each in a process of its own, for the largest memory is that of a process.
        own = sys.executable, "-m", "benchmarks.enasq_child"
        rest = "--repeats", str(options.repeats), "--blocks", str(options.blocks)
        commands = [[*own, *rest, "--only", name] for name in names]
        return max([subprocess.run(one, check=False).returncode for one in commands])
    failed = False
    for name in names:
        for key, value in measure(name, options.blocks, options.repeats).items():
            over = value > LIMITS[key]
            failed |= over
            word = "NOT within" if over else "within"
            print(f"{name}, {key}: {value:.2f}, {word} {LIMITS[key]:.2f}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
