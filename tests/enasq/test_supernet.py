"""Networks with shared weights: architectures are data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enasq import accounting, branches, cell, joining, operations, plan, supernet, units
from enasq import policy as policies
from enasq.behaviour import clean, compat
from enasq.records import KERNELS
from shared import sweep
from shared.errors import UsageError
from tests.enasq.variables import numbers
from tests.quick import quick

NETWORK = plan.Network("search", 0, 2, 2, 4, 1, 3, pool_positions=(1,))
EVERY_OP = jnp.asarray([[0, 0, 1, 1], [2, 2, 0, 3], [1, 4, 3, 0]], jnp.int32)
SECOND = jnp.asarray([[1, 4, 0, 4], [0, 3, 2, 1], [3, 2, 1, 4]], jnp.int32)


def _inside(name: str, stride: int = 1, choices: tuple[str, ...] = ()):
    own = policies.precision(name)
    chosen = tuple(map(policies.precision, choices)) or (own,)
    norms = units.Norms("batch")
    return operations.Inside(3, stride, chosen, own, None, False, False, norms)


def _cell_params(inside):
    """Return the parameters of the inside of a cell of 2 filters, by its reduction."""
    network = plan.Network(
        "search", 0, 1, 3, 8, 1, pool_positions=(0,), stride_inside=True
    )
    policy = policies.QuantPolicy(
        (inside.output,),
        inside.output.weights,
        inside.output.activations,
        inside.output,
    )
    net = supernet.describe(network, policy)
    params = numbers(lambda key: supernet.init(net, key)).params["cell_0"]
    names = ("banks", "output") + (("strided", "loose") if inside.stride == 2 else ())
    params = {name: params[name] for name in names}
    params["output"] = {"conv": params["output"]["conv"]}
    return params


def _plainly(inside, params, code, inputs):
    """Compute what `combine` does from its definition, node by node."""
    nodes, walk = list(inputs), operations.edges(code)
    for number, (node, target, _, op) in enumerate(
        cell.edges(np.asarray(code)).tolist()
    ):
        kind, choice = cell.split_op(op)
        x, stride = nodes[node], inside.stride if node < 2 else 1
        if kind in KERNELS:
            own = units.Kind(inside.precisions[choice])
            bank = params["banks"][operations.bank_name(KERNELS[kind])]
            for stack, step in zip(operations.STACKS, (stride, 1), strict=True):
                row = jax.tree.map(lambda leaf: leaf[walk.row[number]], bank[stack])  # noqa: B023
                x, _ = units.separable(row, {}, x, own, inside.norms, stride=step)
        elif kind == cell.IDENTITY and stride == 2:
            place = 2 * number + node
            row = jax.tree.map(lambda leaf: leaf[place], params["strided"])  # noqa: B023
            x = operations.reduce_raw(inside, inside.output, row, x)
        elif kind in (cell.AVG_POOL, cell.MAX_POOL):
            pool = operations.pools
            x = (pool.avg_pool if kind == cell.AVG_POOL else pool.max_pool)(
                x, stride=stride
            )
        nodes = [*nodes, x] if target == len(nodes) else [*nodes[:-1], nodes[-1] + x]
    total = 0.0
    for node in np.nonzero(cell.loose_ends(np.asarray(code)))[0]:
        x, own = nodes[node], jax.tree.map(lambda leaf: leaf[node], params["output"])  # noqa: B023
        if inside.stride == 2 and node < 2:
            fit = jax.tree.map(lambda leaf: leaf[node], params["loose"])  # noqa: B023
            x = operations.reduce_raw(inside, inside.output, fit, x)
        total = total + joining._node_output(inside, own, x)
    return total


def _assert_close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        size = max(float(jnp.max(jnp.abs(b))), 1e-3)
        np.testing.assert_allclose(a, b, atol=2e-4 * size)


@pytest.mark.parametrize("stride", (1, 2))
def test_a_cell_and_its_gradients_equal_those_of_its_definition(stride, key):
    """One compiled program for both codes, against automatic gradients."""
    inside = _inside("float", stride)
    params = _cell_params(inside)
    inputs = jax.random.normal(key, (2, 2, 4, 4, 2))
    g = jax.random.normal(key, (2, 4 // stride, 4 // stride, 2))

    @quick
    def ours(params, code, inputs):
        run = lambda params, inputs: branches.combine(inside, params, code, inputs)
        y, back = jax.vjp(run, params, inputs)
        return y, back(g)

    for code in (EVERY_OP, SECOND)[: 2 if stride == 1 else 1]:
        plain = lambda params, inputs, code=code: _plainly(inside, params, code, inputs)

        @quick
        def theirs(params, inputs, plain=plain):
            y, back = jax.vjp(plain, params, inputs)
            return y, back(g)

        _assert_close(ours(params, code, inputs), theirs(params, inputs))


@pytest.fixture(scope="module")
def small():
    """A network, its variables, images, and a compiled gradient that counts traces."""
    net = supernet.build(NETWORK, policies.preset("all_ternary"), clean())
    variables = numbers(net.init)
    x = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
    traces = []

    def loss(params, arc):
        traces.append(arc)
        (logits, _), _ = net.apply(variables._replace(params=params), arc, x)
        return jnp.sum(logits**2), logits

    return net, variables, x, quick(jax.grad(loss, has_aux=True)), traces


def _arcs(count):
    keys = jax.random.split(jax.random.key(5), count)
    return jnp.stack([cell.random(key, NETWORK.blocks) for key in keys])


def test_weights_that_were_not_sampled_get_no_gradient_and_nothing_recompiles(small):
    net, variables, x, gradient, traces = small
    for arc in _arcs(3):
        grads, logits = gradient(variables.params, arc)
        assert np.isfinite(np.asarray(logits)).all()
        for number in range(2):
            code = arc[int(number == 1)]
            walk = operations.edges(code)
            for kind, window in KERNELS.items():
                used = np.asarray(walk.row)[np.asarray(walk.op) == kind]
                bank = grads[f"cell_{number}"]["banks"][operations.bank_name(window)]
                sizes = np.abs(bank["stack_1"]["norm"]["offset"]).sum(-1)
                assert set(np.nonzero(sizes)[0]) <= set(used.tolist())
                for leaf in jax.tree.leaves(bank):
                    rest = np.delete(np.asarray(leaf), used, 0)
                    assert not rest.any()
            loose = np.asarray(cell.loose_ends(code))
            kernel = grads[f"cell_{number}"]["output"]["conv"]["kernel"]
            assert (np.asarray(jnp.abs(kernel).sum((1, 2, 3, 4)) > 0) == loose).all()
    assert len(traces) == 1


def test_many_architectures_in_one_program_give_what_each_gives(small):
    net, variables, x, gradient, _ = small
    arcs = _arcs(3)
    together = net.evaluate_many(variables, arcs, x)
    for arc, logits in zip(arcs, together, strict=True):
        np.testing.assert_allclose(
            gradient(variables.params, arc)[1], logits, rtol=1e-5, atol=1e-5
        )


def test_no_convolution_primitive_stands_in_a_loop_or_a_branch():
    inside = _inside("ternary")
    params = _cell_params(inside)
    inputs = jax.ShapeDtypeStruct((2, 2, 4, 4, 2), jnp.float32)

    def both(params, inputs):
        run = lambda params, inputs: branches.combine(inside, params, EVERY_OP, inputs)
        y, back = jax.vjp(run, params, inputs)
        return back(y)

    assert not sweep.has_convolution(both, params, inputs)


def test_an_operation_can_choose_its_quantiser(key):
    """Operation id op + 5 q computes what a cell of that quantiser does."""
    inputs = jax.random.normal(key, (2, 2, 4, 4, 2))
    chosen = _inside("float", choices=("float", "binary"))
    params = _cell_params(chosen)
    binary = chosen._replace(precisions=(policies.precision("binary"),))
    later = EVERY_OP.at[:, 1::2].add(5)
    run = quick(branches.combine, static_argnums=0)
    expected = run(binary, params, EVERY_OP, inputs)
    np.testing.assert_allclose(run(chosen, params, later, inputs), expected, atol=1e-5)
    floats = run(chosen, params, EVERY_OP, inputs)
    assert float(jnp.max(jnp.abs(floats - expected))) > 0.1


@pytest.mark.parametrize(
    ("layers", "channels", "count"), ((3, 3, 5_804_860), (2, 1, 5_201_380))
)
def test_published_networks_have_their_published_sizes(layers, channels, count):
    network = plan.Network("search", layers, 20, 3, 32, channels)
    policy = policies.preset("reference")
    net = supernet.build(network, policy, compat())
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes.params)]
    assert sum(sizes) == count
    found = accounting.totals(accounting.records(network, policy))
    assert found.parameters == count


def test_inputs_are_checked():
    policy = policies.preset("all_binary")
    with pytest.raises(UsageError, match="kind: got 'fixed'"):
        supernet.build(dataclasses.replace(NETWORK, kind="fixed"), policy)
    learned = policies.Precision(
        policies.Quantizer("ttq"), policies.Quantizer("ternary")
    )
    with pytest.raises(UsageError, match="choices: got 'ttq'"):
        supernet.build(NETWORK, dataclasses.replace(policy, choices=(learned,)))
