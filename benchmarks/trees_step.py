"""Claim: routing costs little on top of the static network, and both run near the
floor.

Steps of the published size: batch 128, images 32 x 32 x 3, 10 classes.

- the floor: operations of a step (forward, and twice that backward) over the best rate
  of a convolution of the network's own shapes, measured in the same run;
- the static network of 8 layers against the same written in plain PyTorch, channels
  last: at most 1.4 of its time a step, and no slower in an evaluation pass;
- actor and critic chains: at most 1.15 of the static network;
- the tree of 95 nodes: at most 5 chains, and 30 seconds to its first step;
- with `--members 8`, which is the default on a GPU: eight chains that differ in their
  price of an operation take a step in one program in at most a third of the time that
  they take in turn. On a CPU, which one network keeps busy, the ratio has no limit.

Least times of repeats in turn. Exit status 1 if a limit is exceeded. PyTorch runs on
the device that JAX runs on, and is left out where it cannot or is not installed:
pip install torch==2.13.0

    python -m benchmarks.trees_step [--repeats 10] [--batch 128] [--skip-tree]
        [--members N]
"""

import argparse
import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mask_step import least
from multipath.trees import data, forward, train
from multipath.trees import net as networks
from multipath.trees.config import K_CPTS, Config, channels, network
from shared import config as configs
from shared import groups, sweep

IMAGE, CLASSES = (32, 32, 3), 10
CONFIGS = {
    "static": Config(family="sr", depth=8),
    "actor": Config(),
    "critic": Config(family="critic", tau=0.1),
    "tree": Config(topology="tree"),
}
LIMITS = {
    "static / torch": 1.4,
    "static / torch, evaluation": 1.0,
    "actor / static": 1.15,
    "critic / static": 1.15,
    "tree / actor": 5.0,
    "seconds to the tree's first step": 30.0,
    "one program / in turn": 1 / 3,
}


def batch_of(size: int) -> data.Split:
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(size=(size, *IMAGE)), jnp.float32)
    return data.Split(images, jnp.asarray(rng.integers(0, CLASSES, size), jnp.int32))


def make_step(config: Config, batch: data.Split) -> Callable[[], Any]:
    """Return what takes one compiled step; the first call compiles."""
    static, hyper = configs.split(config)
    program = train.build(static, network(static, IMAGE, CLASSES))
    init = jax.jit(program.init, compiler_options=groups.ONCE)
    step = jax.jit(program.step, donate_argnums=0)
    state: list[Any] = []

    def run() -> None:
        if not state:
            state.append(init(jax.random.key(0), hyper))
        state[0], metrics = step(state[0], batch)
        jax.block_until_ready((state[0], metrics))

    return run


def members_together(count: int, batch: data.Split) -> dict[str, Callable[[], Any]]:
    """Return steps of chains that differ in price: in one program, and in turn."""
    prices = (K_CPTS * count)[:count]
    chains = [dataclasses.replace(CONFIGS["actor"], k_cpt=price) for price in prices]
    ((static, _, hyper),) = sweep.group(chains)
    program = train.build(static, network(static, IMAGE, CLASSES))
    own = [{name: values[i] for name, values in hyper.items()} for i in range(count)]
    init = jax.jit(program.init, compiler_options=groups.ONCE)
    one = jax.jit(program.step, donate_argnums=0)
    # Also on a CPU, where training would go through them in turn.
    every = jax.jit(jax.vmap(program.step, (0, None)), donate_argnums=0)
    together: list[Any] = []
    apart: list[Any] = []

    def step_together() -> None:
        if not together:
            together.append(groups.start(program, hyper))
        together[0], metrics = every(together[0], batch)
        jax.block_until_ready((together[0], metrics))

    def step_in_turn() -> None:
        if not apart:
            apart.extend(init(jax.random.key(0), setting) for setting in own)
        for i in range(count):
            apart[i], _ = one(apart[i], batch)
        jax.block_until_ready(apart)

    return {"one program": step_together, "in turn": step_in_turn}


def make_pass(config: Config, batch: data.Split) -> Callable[[], Any]:
    """Return what evaluates the network once."""
    net = network(config, IMAGE, CLASSES)
    params, state = jax.jit(lambda: networks.init(jax.random.key(0), net))()
    run = jax.jit(lambda p, s, x: forward.apply(net, p, s, x)[0].probabilities)
    return lambda: run(params, state, batch.images).block_until_ready()


def floor(config: Config, batch: int) -> float:
    """Return the seconds of a step at the best rate of its convolutions."""
    rng, best = np.random.default_rng(0), 0.0
    for entry in sorted(set(channels(config))):
        for s, count in enumerate(entry):
            side = 32 >> (4 - len(entry) + s)
            x = jnp.asarray(rng.normal(size=(batch, side, side, count)), jnp.float32)
            kernel = jnp.asarray(rng.normal(size=(3, 3, count, count)), jnp.float32)
            run = jax.jit(_convolve)
            seconds = least({"": lambda: run(x, kernel).block_until_ready()}, 5)[""]  # noqa: B023
            best = max(best, kernel.size * side**2 * batch / seconds)
    operations = np.sum(networks.operations(network(config, IMAGE, CLASSES)))
    return float(3 * operations * batch / best)


def _convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def torch_runs(config: Config, batch: data.Split) -> dict[str, Callable[[], Any]]:
    """Return a step and an evaluation pass of the static network in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(min(2, os.cpu_count() or 1))
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"

    class Layer(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            inputs = inputs[-len(outputs) :]
            pairs = zip(inputs, outputs, strict=True)
            self.across = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
            pairs = zip(outputs, outputs[1:], strict=False)
            self.down = nn.ModuleList(
                nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairs
            )
            self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in outputs)

        def forward(self, x):
            x, z, out = x[-len(self.across) :], None, []
            for s, (conv, norm) in enumerate(zip(self.across, self.norms, strict=True)):
                below = (
                    None if z is None else self.down[s - 1](functional.max_pool2d(z, 2))
                )
                z = conv(x[s]) if below is None else conv(x[s]) + below
                out.append(torch.relu(norm(z)))
            return out

    arch = channels(config)
    sizes = [(3,) * len(arch[0]), *arch]
    layers = [Layer(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    model: Any = nn.Sequential(*layers)
    model = model.to(device, memory_format=torch.channels_last)
    last = nn.Linear(arch[-1][-1] * 16, CLASSES, device=device)
    params = [*model.parameters(), *last.parameters()]
    optimizer = torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=1e-4)
    x = torch.tensor(np.asarray(batch.images), device=device).permute(0, 3, 1, 2)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.tensor(np.asarray(batch.labels), device=device).long()

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def forward():
        scales = [x[:, :, :: 2**i, :: 2**i] for i in range(len(arch[0]))]
        return last(model(scales)[-1].flatten(1))

    def step():
        model.train()
        optimizer.zero_grad()
        functional.cross_entropy(forward(), y).backward()
        optimizer.step()
        wait()

    def evaluate():
        model.eval()
        with torch.inference_mode():
            forward()
        wait()

    return {"torch": step, "torch, evaluation": evaluate}


def without_torch() -> str:
    """Return why PyTorch is left out, nothing if it can run where JAX does."""
    if not importlib.util.find_spec("torch"):
        return "it is not installed"
    import torch

    if jax.default_backend() != "cpu" and not torch.cuda.is_available():
        return f"JAX runs on a {jax.default_backend()}, and torch has no cuda"
    return ""


def main() -> int:
    """Print the table; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description="Time steps of multipath networks.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--skip-tree", action="store_true")
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument(
        "--members",
        type=int,
        default=0 if on_cpu else 8,
        help="networks of one program; 0 leaves them out",
    )
    options = parser.parse_args()
    batch, found = batch_of(options.batch), {}
    chosen = [n for n in CONFIGS if n != "tree" or not options.skip_tree]
    runs = {name: make_step(CONFIGS[name], batch) for name in chosen}
    if not options.skip_tree:
        began = time.perf_counter()
        runs["tree"]()
        found["seconds to the tree's first step"] = time.perf_counter() - began
    runs["static, evaluation"] = make_pass(CONFIGS["static"], batch)
    if reason := without_torch():
        print(f"PyTorch is left out: {reason}")
    else:
        runs |= torch_runs(CONFIGS["static"], batch)
    if options.members > 1:
        runs |= members_together(options.members, batch)
    seconds = least(runs, options.repeats)
    for name, value in seconds.items():
        print(f"{name:24s} {1000 * value:8.1f} ms")
    lowest = floor(CONFIGS["static"], options.batch)
    print(f"static over the floor    {seconds['static'] / lowest:8.2f}")
    for pair in (name for name in LIMITS if " / " in name):
        kinds, _, place = pair.partition(",")
        (ours, _, other), place = kinds.partition(" / "), place and f",{place}"
        if {ours + place, other + place} <= set(seconds):
            found[pair] = seconds[ours + place] / seconds[other + place]
    free = {"one program / in turn"} if on_cpu else set()
    for name, value in found.items():
        limit = "none on a CPU" if name in free else f"{LIMITS[name]:.3g}"
        print(f"{name:34s} {value:8.2f}   limit {limit}")
    judged = {name: value for name, value in found.items() if name not in free}
    return int(any(value > LIMITS[name] for name, value in judged.items()))


if __name__ == "__main__":
    raise SystemExit(main())
