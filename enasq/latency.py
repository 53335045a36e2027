"""What architectures take, by a table of measured steps.

An architecture's network is exported as it stands, untrained, and the seconds of its
steps are added up. Equal steps (the same operation on the same shapes) are measured
once, so that a search space of 10^25 architectures needs some dozens of measurements,
and the same architecture always takes the same.

Reference: Cai et al. (2019), ProxylessNAS, section 3.3.
"""

import functools
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from enasq import bitwise, exact, export, fixed, running
from enasq.cell import Architecture
from enasq.graph import Graph, Step
from enasq.plan import Network
from enasq.policy import QuantPolicy

REPEATS = 9
"""Runs of a step, of which the median counts."""


def measured(
    network: Network, policy: QuantPolicy, *, batch: int = 32
) -> Callable[[Architecture], float]:
    """Return a measure of architectures: seconds for one image, on this machine.

    Args:
        network: fixed.
        policy: its quantisers; networks that cannot be packed run in float32.
        batch: images at a time.
    """
    known: dict[Any, float] = {}

    def measure(arc: Architecture) -> float:
        graph = untrained(network, policy, arc)
        return sum(_seconds(graph, batch, known)) / batch

    return measure


def untrained(network: Network, policy: QuantPolicy, arc: Architecture) -> Graph:
    """Return the network of an architecture as exported, all weights alike."""
    net = fixed.describe(network, policy, arc)
    shapes = jax.eval_shape(lambda key: fixed.init(net, key), jax.random.key(0))
    # Alike everywhere, so that equal steps have equal settings.
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes)
    why = exact.obstacle(network, policy, net.arc)
    make = export.float_graph if why else export.packed_graph
    mean, std = [0.0] * network.channels, [128.0] * network.channels
    return make(net, variables, mean=mean, std=std)


def _seconds(graph: Graph, batch: int, known: dict[Any, float]) -> list[float]:
    """Return what each step takes, and keep it in `known`."""
    loaded = running.Loaded(graph)
    images = jnp.zeros((batch, *graph.shape), jnp.uint8)
    values: list[Any] = []
    found = []
    for step, own in zip(graph.steps, loaded.arrays, strict=True):
        program = _program(graph.form, step.op, json.dumps(step.options))
        given = [values[i] for i in step.inputs] or [images]
        values.append(program(own, given))
        shapes = [(x.shape, str(x.dtype)) for x in jax.tree.leaves((own, given))]
        key = step.op, repr(sorted(step.options.items())), *shapes
        if key not in known:
            known[key] = _timed(program, own, given)
        found.append(known[key])
    return found


@functools.lru_cache(maxsize=512)
def _program(form: str, op: str, options: str) -> Callable:
    """Return a compiled step, of which equal ones share one."""
    step = Step(op, op, (), json.loads(options), {})
    run = lambda own, given: running.STEPS[form](step, own, given)[0]
    wide = jax.default_backend() == "cpu" and form == "packed"
    return jax.jit(run, compiler_options=bitwise.WIDE if wide else None)


def _timed(program: Callable, own: Any, given: Any) -> float:
    jax.block_until_ready(program(own, given))
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(program(own, given))
        times.append(time.perf_counter() - begun)
    return float(np.median(times))
