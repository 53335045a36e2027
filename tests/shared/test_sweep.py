import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from shared import parallel, sweep
from shared.config import traced
from shared.errors import UsageError

MEMBERS = 3


@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 4
    rate: float = traced(0.1)
    decay: float = traced(0.0, zero_is_static=True)


def convolve(image, kernel):
    return lax.conv(image, kernel, (1, 1), "SAME")


def conv_loss(kernel, image):
    return jnp.sum(jnp.tanh(convolve(image, kernel)) ** 2)


def dense_loss(weights, inputs):
    return jnp.sum(jnp.tanh(inputs @ weights) ** 2)


def make_step(loss, shape):
    """One SGD step of a member whose leaves are of every kind, keys included."""

    def step(member, inputs):
        value, grads = jax.value_and_grad(loss)(member["weights"], inputs)
        weights = jnp.where(member["frozen"], 0.0, 0.1) * grads
        new = {
            "key": jax.random.fold_in(member["key"], member["count"]),
            "weights": member["weights"] - weights,
            "frozen": ~member["frozen"],
            "count": member["count"] + 1,
        }
        return new, value

    def members(key):
        return {
            "key": jax.random.split(key, MEMBERS),
            "weights": jax.random.normal(key, (MEMBERS, *shape)),
            "frozen": jnp.array([False, True, False]),
            "count": jnp.arange(MEMBERS),
        }

    return step, members


PROGRAMS = {
    "dense": (dense_loss, (5, 4), (7, 5)),
    "conv": (conv_loss, (2, 3, 3, 3), (4, 3, 6, 6)),
}


def comparable(tree):
    """Return the leaves, keys as numbers, all on the host."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    data = lambda x: jax.random.key_data(x) if is_key(x) else x
    return jax.tree.map(lambda x: np.asarray(data(x)), tree)


def equation_names(fn, *args):
    """Return the primitives of a program's outermost levels, calls opened."""
    names, pending = [], [jax.make_jaxpr(fn)(*args)]
    while pending:
        for equation in pending.pop().eqns:
            names.append(equation.primitive.name)
            if "jit" in equation.primitive.name:
                pending.append(equation.params["jaxpr"])
    return names


@pytest.mark.parametrize("program", PROGRAMS)
def test_schedules_agree_with_a_python_loop(program, key):
    with jax.enable_x64(True):
        loss, shape, input_shape = PROGRAMS[program]
        step, members = make_step(loss, shape)
        step = jax.jit(step)
        inputs = jax.random.normal(key, input_shape)
        states = members(key)
        pick = lambda i: jax.tree.map(lambda x: x[i], states)
        singles = [comparable(step(pick(i), inputs)) for i in range(MEMBERS)]
        expected = jax.tree.map(lambda *x: np.stack(x), *singles)

        # Two devices do not divide three members.
        for mesh in (None, parallel.mesh(2, axis="member")):
            for how in ("auto", *sweep.SCHEDULES):
                many = sweep.fan_out(step, how=how, in_axes=(0, None), mesh=mesh)
                found = comparable(many(states, inputs))
                chex.assert_trees_all_close(found, expected, rtol=1e-12)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("how", ["auto", "vmap", "map"])
def test_a_second_call_does_not_trace_again(how, sharded, key):
    traces = 0

    def count_traces(x):
        nonlocal traces
        traces += 1
        return jnp.sin(x)

    mesh = parallel.mesh(2) if sharded else None
    many = sweep.fan_out(count_traces, how=how, mesh=mesh)
    out = many(jnp.ones((MEMBERS, 2)))
    first = traces
    many(out)
    many(np.zeros((MEMBERS, 2), np.float32))
    assert traces == first > 0


def test_members_that_the_devices_divide_stay_sharded():
    mesh = parallel.mesh(2, axis="member")
    out = sweep.fan_out(jnp.sin, how="vmap", mesh=mesh)(jnp.ones((4, 2)))
    assert out.sharding.spec == P("member")
    assert {shard.data.shape for shard in out.addressable_shards} == {(2, 2)}


def test_a_mesh_of_explicit_axes_serves_too():
    mesh = jax.make_mesh((2,), ("seed",), axis_types=(AxisType.Explicit,))
    out = sweep.fan_out(jnp.sin, how="map", mesh=mesh)(jnp.arange(3.0))
    chex.assert_trees_all_close(np.asarray(out), np.sin(np.arange(3.0)), rtol=1e-6)


def test_auto_follows_backend_and_content(monkeypatch):
    images, kernels = jnp.ones((3, 1, 2, 5, 5)), jnp.ones((3, 2, 2, 3, 3))
    dense = equation_names(sweep.fan_out(jnp.sin), images)
    assert "scan" in dense
    conv = equation_names(sweep.fan_out(convolve), images, kernels)
    assert "scan" not in conv and conv.count("conv_general_dilated") == 3
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    conv = equation_names(sweep.fan_out(convolve), images, kernels)
    assert "scan" not in conv and conv.count("conv_general_dilated") == 1


@pytest.mark.parametrize("sharded", [False, True])
def test_loop_calls_a_host_function_on_the_devices_in_turn(sharded):
    calls = []
    compiled = jax.jit(lambda x, y: x * y)

    def host(x, scale, steps):
        calls.append((x.devices().pop().id, float(x), type(steps)))
        for _ in range(steps):
            x = compiled(x, scale)
        return {"x": x, "steps": steps}

    mesh = parallel.mesh(2) if sharded else None
    many = sweep.fan_out(host, how="loop", in_axes=(0, None, None), mesh=mesh)
    out = many(jnp.arange(3.0), jnp.float32(2), 4)
    places = (0, 1, 0) if sharded else (0, 0, 0)
    assert calls == [(place, i, int) for i, place in enumerate(places)]
    assert out["x"].tolist() == [0, 16, 32] and out["steps"].tolist() == [4, 4, 4]


def test_member_axes_may_differ_by_argument():
    x, y = jnp.arange(6.0).reshape(2, 3), jnp.arange(12.0).reshape(3, 4)
    expected = x.T[:, :, None] + y[:, None, :]
    for how in sweep.SCHEDULES:
        add = lambda a, b, c: a[:, None] + b[None, :] + c
        many = sweep.fan_out(add, how=how, in_axes=(1, 0, None))
        assert (many(x, y, 0.0) == expected).all()
        many = sweep.fan_out(add, how=how, in_axes=(-1, 0, None))
        assert (many(x, y, 0.0) == expected).all()


def test_donated_members_are_taken():
    for mesh in (None, parallel.mesh(2)):
        x = jax.block_until_ready(jnp.ones((2, 3)))
        if mesh is not None:
            x = jax.device_put(x, jax.NamedSharding(mesh, P("data")))
        add = sweep.fan_out(lambda x: x + 1, how="map", mesh=mesh, donate_argnums=0)
        assert (add(x) == 2).all()
        assert x.is_deleted()


@pytest.mark.parametrize(
    "args, in_axes",
    [
        ((np.ones((2, 3)), np.ones((3, 3))), 0),
        ((np.ones((0, 3)), np.ones((0, 3))), 0),
        ((np.ones((2, 3)), np.float32(1)), 0),
        ((np.ones((2, 3)), np.ones((2, 3))), None),
        ((np.ones((2, 3)), np.ones((2, 3))), (0,)),
        ((np.ones((2, 3)), np.ones((2, 3))), (0, 2)),
    ],
)
def test_fan_out_refuses_arguments_without_equal_members(args, in_axes):
    with pytest.raises(UsageError):
        sweep.fan_out(lambda x, y: x, in_axes=in_axes)(*args)


def test_fan_out_refuses_a_wrong_schedule_or_mesh():
    with pytest.raises(UsageError, match="'vmap'"):
        sweep.fan_out(jnp.sin, how="vmpa")
    mesh = jax.make_mesh(
        (1, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    with pytest.raises(UsageError, match="one dimension"):
        sweep.fan_out(jnp.sin, mesh=mesh)


@jax.custom_vjp
def conv_backward(x):
    return x


conv_backward.defvjp(lambda x: (x, x), lambda x, g: (convolve(x, x) * 0 + g,))

NESTED = {
    "plain": lambda x: convolve(x, x),
    "jit": jax.jit(jax.jit(lambda x: convolve(x, x))),
    "grad": jax.grad(lambda x: conv_loss(x, x)),
    "vmap": lambda x: jax.vmap(lambda y: convolve(y, y))(x[None]),
    "scan": lambda x: lax.scan(lambda c, _: (convolve(c, c), None), x, None, 3),
    "map": lambda x: lax.map(lambda y: convolve(y, y), x[None]),
    "while": lambda x: lax.while_loop(
        lambda c: c.sum() > 0, lambda c: convolve(c, c), x
    ),
    "while test": lambda x: lax.while_loop(lambda c: convolve(c, c).sum() > 0, abs, x),
    "cond": lambda x: lax.cond(x.sum() > 0, lambda y: y, lambda y: convolve(y, y), x),
    "switch": lambda x: lax.switch(2, [abs, jnp.sin, lambda y: convolve(y, y)], x),
    "custom gradient": jax.grad(lambda x: conv_backward(x).sum()),
    "remat": jax.grad(jax.checkpoint(lambda x: convolve(x, x).sum())),
    "deep": lambda x: lax.scan(
        lambda c, _: (lax.cond(True, jax.jit(lambda y: convolve(y, y)), abs, c), None),
        x,
        None,
        3,
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_has_convolution_finds_it_at_any_depth(name):
    x = jax.ShapeDtypeStruct((3, 3, 3, 3), jnp.float32)
    assert sweep.has_convolution(NESTED[name], x)


def test_has_convolution_looks_into_shards():
    mesh = parallel.mesh(2)
    for fn, found in ((lambda x: convolve(x, x), True), (jnp.sin, False)):
        shard = jax.shard_map(fn, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
        x = jax.ShapeDtypeStruct((6, 3, 3, 3), jnp.float32)
        assert sweep.has_convolution(shard, x) is found


def test_has_convolution_is_false_without_one(key):
    def dense(weights, inputs, key):
        noise = jax.random.bernoulli(key, 0.5, inputs.shape)
        body = lambda w, _: (w - jax.grad(dense_loss)(w, inputs * noise), None)
        weights = lax.scan(body, weights, None, 2)[0]
        return lax.cond(weights.sum() > 0, jnp.sin, lambda w: conv_backward(w), weights)

    weights = jax.ShapeDtypeStruct((5, 4), jnp.float32)
    assert not sweep.has_convolution(dense, weights, np.ones((2, 5)), key)


def test_stack_and_unstack_are_inverse(key):
    trees = [
        {"k": jax.random.fold_in(key, i), "x": (jnp.full(2, i), jnp.bool_(i % 2))}
        for i in range(3)
    ]
    whole = sweep.stack(trees)
    assert whole["k"].shape == (3,) and whole["x"][0].shape == (3, 2)
    for tree, again in zip(trees, sweep.unstack(whole), strict=True):
        chex.assert_trees_all_equal(comparable(tree), comparable(again))


@pytest.mark.parametrize("trees", [[], [{"a": 1}, {"b": 1}], [{"a": 1}, {"a": [1]}]])
def test_stack_refuses_trees_that_differ(trees):
    with pytest.raises(UsageError):
        sweep.stack(trees)


def test_unstack_refuses_leaves_without_a_common_axis():
    with pytest.raises(UsageError):
        sweep.unstack((jnp.ones(2), jnp.ones(3)))


def test_group_gathers_equal_static_parts_in_order_of_appearance():
    configs = [
        Config(8, rate=0.1),
        Config(4, rate=0.2),
        Config(8, rate=0.3),
        Config(8, rate=0.4, decay=1.0),
    ]
    wide, narrow, decayed = sweep.group(configs)
    assert wide.indices == (0, 2) and wide.static.width == 8
    chex.assert_trees_all_close(wide.hyper["rate"], jnp.array([0.1, 0.3]))
    assert narrow.indices == (1,) and narrow.static.width == 4
    # A term that is switched off is another program.
    assert decayed.indices == (3,) and decayed.static != wide.static


def test_grid_is_the_product_and_leaves_the_rest():
    assert sweep.grid(Config(width=9)) == (Config(width=9),)
    found = sweep.grid(Config(width=9), rate=[0.1, 0.2], decay=(0.0, 1.0))
    assert [(c.rate, c.decay) for c in found] == [
        (0.1, 0.0),
        (0.1, 1.0),
        (0.2, 0.0),
        (0.2, 1.0),
    ]
    assert {c.width for c in found} == {9}


@pytest.mark.parametrize("values", [{"rte": [0.1]}, {"rate": "01"}, {"rate": 0.1}])
def test_grid_refuses_unknown_fields_and_lone_values(values):
    with pytest.raises(UsageError):
        sweep.grid(Config(), **values)
