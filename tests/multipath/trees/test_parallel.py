"""Devices that share the batches of a network change nothing but the rounding."""

import chex
import jax
from jax import numpy as jnp

from multipath.trees import data, train
from multipath.trees.config import Config, network
from shared import groups, parallel
from shared.config import split
from tests.multipath.trees import toy
from tests.quick import quick

CONFIG = Config(
    arch=("2,2", "3"),
    router_n_chan=3,
    dyn_k_cpt=True,
    k_cpts=(0.0, 1e-4, 1e-3),
    lr_half=2.0,
)


def trained(devices):
    """Return the state after a few updates, the losses, and the statistics."""
    static, hyper = split(CONFIG)
    net = network(static, toy.IMAGE, toy.CLASSES)
    axis_name = "data" if devices > 1 else None
    program = train.build(static, net, axis_name=axis_name)
    state = groups.start(program, {name: value[None] for name, value in hyper.items()})
    step = quick(program.step)
    if devices > 1:
        step = parallel.data_parallel(program.step, parallel.mesh(devices))
    losses = []
    for seed in range(3):
        images, targets = toy.images(8, seed)
        batch = data.Split(images, jnp.argmax(targets, -1).astype(jnp.int32))
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
    # Statistics are taken on one device.
    state = jax.device_put(state, jax.devices()[0])
    found = quick(program.evaluate)(state, batch)
    return state._replace(key=None), losses, found


def test_two_devices_train_an_adaptive_actor_as_one_does():
    with jax.enable_x64(True):
        for ours, theirs in zip(trained(2), trained(1), strict=True):
            chex.assert_trees_all_close(ours, theirs, rtol=1e-9, atol=1e-12)
