"""Small networks and batches for tests."""

import functools

import jax
import numpy as np

from gaitprop import networks, rules
from tests.gaitprop.settings import Settings

quick = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
"""Compiles fast: tests run a program once."""


def batch(key, rows, config):
    """Return inputs and labels."""
    x = jax.random.uniform(jax.random.fold_in(key, 1), (rows, config.widths[0]))
    labels = jax.random.randint(jax.random.fold_in(key, 2), (rows,), 0, config.classes)
    return x, labels


def network(key, config, noise=0.0):
    """Return parameters with biases and kernels moved by `noise` from their start."""
    shape = Settings(
        widths=config.widths, init=config.init, first_layer=config.first_layer
    )
    return _network(key, shape, noise)


@functools.partial(quick, static_argnames="config")
def _network(key, config, noise):
    params = []
    for i, layer in enumerate(networks.init(key, config)):
        one, two = jax.random.split(jax.random.fold_in(key, 10 + i))
        kernel, bias = layer["kernel"], layer["bias"]
        size = noise * kernel.shape[0] ** -0.5
        params.append(
            {
                "kernel": kernel + size * jax.random.normal(one, kernel.shape),
                "bias": 0.1 * jax.random.normal(two, bias.shape),
            }
        )
    return tuple(params)


@functools.partial(quick, static_argnames="config")
def updates(params, x, labels, config, hyper):
    """Return gradients and figures of the rule of `config`."""
    state = rules.init_rule_state(jax.random.key(3), params, config, hyper)
    grads, (_, info) = rules.gradients(params, state, x, labels, hyper, config)
    return grads, info


@functools.partial(quick, static_argnames="config")
def errors(params, x, labels, config, hyper):
    """Return the errors of the rule of `config`."""
    state = rules.init_rule_state(jax.random.key(3), params, config, hyper)
    h = networks.forward(params, x, config)
    target = networks.output_target(h[-1], labels, config)
    rule = rules.RULES[config.algorithm]
    return rule(params, state, h, target, hyper, config)[0]


def distance(ours, theirs):
    """Return the largest relative Frobenius distance between two trees' leaves."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    gaps = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    return max(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30) for a, b in gaps)
