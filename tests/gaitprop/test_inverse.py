"""Solvers: all give `q W^-1`, and `refine` earns its keep."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from gaitprop import factors, networks, refine, rules
from gaitprop.inverse import SOLVERS
from tests.gaitprop.build import batch, distance, network, quick, updates
from tests.gaitprop.settings import settings

EXACT = ("lu", "inv", "refine")


def kernel_near(key, n, noise):
    """Return a kernel at a distance from an orthogonal one."""
    kernel = jax.nn.initializers.orthogonal()(key, (n, n))
    return kernel + noise * n**-0.5 * jax.random.normal(key, (n, n))


@pytest.mark.parametrize(
    ("solver", "ortho_weight", "init"),
    (
        ("inv", 0.0, "glorot_normal"),
        ("refine", 0.0, "orthogonal"),
        ("refine", 0.0, "glorot_normal"),
        ("refine", 0.1, "orthogonal"),
        ("refine", 0.1, "glorot_normal"),
    ),
)
def test_solvers_agree(key, solver, ortho_weight, init):
    with jax.enable_x64(True):
        config, hyper = settings(
            widths=(14, 12, 12, 10),
            algorithm="gait",
            solver=solver,
            ortho_weight=ortho_weight,
            init=init,
            tolerance=1e-12,
        )
        params = network(key, config, noise=0.1)
        x, labels = batch(key, 16, config)
        ours, _ = updates(params, x, labels, config, hyper)
        plain = dataclasses.replace(config, solver="lu")
        golden, _ = updates(params, x, labels, plain, hyper)
        assert distance(ours, golden) < 1e-9


def test_lu_solves_what_numpy_solves(key):
    with jax.enable_x64(True):
        kernels = jax.random.normal(key, (3, 9, 9))
        q = jax.random.normal(jax.random.fold_in(key, 1), (3, 4, 9))
        expected = np.asarray(q) @ np.linalg.inv(np.asarray(kernels))
        solve = quick(lambda w, q: factors.solve(factors.factor(w), q))
        np.testing.assert_allclose(solve(kernels, q), expected, rtol=1e-9)
        np.testing.assert_allclose(solve(kernels[1], q[1]), expected[1], rtol=1e-9)
        inverses = np.linalg.inv(np.asarray(kernels))
        np.testing.assert_allclose(quick(factors.invert)(kernels), inverses, rtol=1e-9)


def test_layers_of_equal_width_are_one_batch(key):
    kernels = [jnp.full((n, n), float(i)) for i, n in enumerate((4, 3, 4, 3, 2))]
    shapes = []

    def fn(stack):
        shapes.append(stack.shape)
        return 2 * stack

    results = factors.by_width(fn, kernels)
    assert sorted(shapes) == [(1, 2, 2), (2, 3, 3), (2, 4, 4)]
    for i, (ours, kernel) in enumerate(zip(results, kernels, strict=True)):
        np.testing.assert_array_equal(ours, 2 * kernel, err_msg=str(i))


def test_transpose_is_right_for_orthonormal_kernels(key):
    kernel = kernel_near(key, 20, 0.0)
    q = jax.random.normal(key, (4, 20))
    x, _, _ = SOLVERS["transpose"].solve({"kernel": kernel}, (), (), q, 1e-5)
    np.testing.assert_allclose(x @ kernel, q, atol=1e-5)


def drift(key, steps, rate):
    """Solve along a kernel that drifts, and return figures `[steps]` and residuals."""
    n, rows = 200, 4
    kernel = kernel_near(key, n, 0.3)

    def step(carry, t):
        kernel, memory = carry
        one, two = jax.random.split(jax.random.fold_in(key, t))
        q = jax.random.normal(one, (rows, n))
        x, memory, info = refine.with_memory(kernel, memory, q, 1e-5)
        info["true"] = jnp.linalg.norm(q - x @ kernel) / jnp.linalg.norm(q)
        kernel = kernel + rate * n**-0.5 * jax.random.normal(two, (n, n))
        return (kernel, memory), info

    carry = (kernel, refine.start(kernel))
    run = quick(lambda carry: jax.lax.scan(step, carry, jnp.arange(steps))[1])
    return run(carry)


def test_refinement_holds_the_residual_while_the_kernel_moves(key):
    info = drift(key, 200, 1e-3)
    assert float(info["true"].max()) < 1e-5
    np.testing.assert_allclose(info["true"], info["residual"], atol=3e-7)
    assert 0 < float(info["refreshes"].sum()) < 60
    assert float(info["fallbacks"][10:].sum()) == 0
    # After the first inverse a solve takes a few sweeps, not a factorisation.
    assert 0.5 < float(info["sweeps"][10:].mean()) < 5


def test_faster_kernels_renew_their_inverse_more_often(key):
    slow, fast = (drift(key, 150, rate)["refreshes"].sum() for rate in (1e-5, 3e-3))
    assert float(fast) > 2 * float(slow)


def test_a_useless_inverse_falls_back_to_lu_and_is_replaced(key):
    kernel = kernel_near(key, 30, 0.5)
    memory = refine.start(kernel)._replace(inverse_t=10 * jnp.eye(30))
    q = jax.random.normal(key, (6, 30))
    solve = quick(refine.with_memory)
    x, memory, info = solve(kernel, memory, q, 1e-5)
    assert float(info["fallbacks"]) == 1
    np.testing.assert_allclose(x @ kernel, q, atol=1e-4)
    _, _, info = solve(kernel, memory, q, 1e-5)
    assert float(info["fallbacks"]) == 0


@pytest.mark.parametrize(("noise", "falls"), ((0.05, 0), (3.0, 1)))
def test_gram_solves_near_orthogonal_rows_and_leaves_others_to_lu(key, noise, falls):
    kernel = 1.5 * kernel_near(key, 40, noise)
    q = jax.random.normal(key, (6, 40))
    x, info = quick(refine.with_gram)(kernel, kernel @ kernel.T, q, 1e-5)
    assert float(info["fallbacks"]) == falls
    residual = float(jnp.linalg.norm(q - x @ kernel) / jnp.linalg.norm(q))
    assert residual < (1e-4 if falls else 1e-5)
    assert float(info["residual"]) == pytest.approx(residual, abs=1e-6)


def test_gram_refines_what_lu_solves(key):
    # Rounding in the factors costs a plain solve some digits.
    values = jnp.logspace(0, 4, 100)[:, None]
    left, right = kernel_near(key, 100, 0.0), kernel_near(jax.random.key(1), 100, 0.0)
    kernel = left @ (values * right)
    q = jax.random.normal(key, (6, 100))
    x, info = quick(refine.with_gram)(kernel, kernel @ kernel.T, q, 1e-7)
    plain = quick(lambda w, q: factors.solve(factors.factor(w), q))(kernel, q)
    assert float(info["fallbacks"]) == 1
    gaps = [float(jnp.linalg.norm(q - y @ kernel)) for y in (x, plain)]
    assert gaps[0] < 0.6 * gaps[1]


def test_zero_right_hand_sides_need_no_sweep(key):
    kernel = kernel_near(key, 20, 0.3)
    q = jnp.zeros((3, 20))
    x, _, info = quick(refine.with_memory)(kernel, refine.start(kernel), q, 1e-5)
    assert not np.any(x)
    assert (float(info["residual"]), float(info["fallbacks"])) == (0, 0)


def large_products(jaxpr, n):
    """Count products of two `n x n` matrices, in nested programs too."""
    total = 0
    for equation in jaxpr.eqns:
        shapes = [v.aval.shape for v in equation.invars if hasattr(v.aval, "shape")]
        total += equation.primitive.name == "dot_general" and shapes == [(n, n)] * 2
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr"),
        ):
            inner = getattr(inner, "jaxpr", inner)
            total += large_products(inner, n) if hasattr(inner, "eqns") else 0
    return total


def test_the_gram_matrix_is_formed_once(key):
    config, hyper = settings(
        widths=(17,) * 4, algorithm="gait", solver="refine", ortho_weight=0.1
    )
    params = networks.init(key, config)
    state = rules.init_rule_state(key, params, config, hyper)
    assert jax.tree.leaves(state) == []
    jaxpr = jax.make_jaxpr(lambda *a: rules.gradients(*a, hyper, config))(
        params, state, *batch(key, 6, config)
    )
    # W W^T and off(G) W for each of three layers, and nothing else of that size.
    assert large_products(jaxpr.jaxpr, 17) == 6


@pytest.mark.parametrize("solver", EXACT)
def test_a_singular_kernel_shows_in_the_metrics(key, solver):
    config, hyper = settings(algorithm="gait", solver=solver)
    params = network(key, config)
    kernel = params[1]["kernel"]
    params[1]["kernel"] = kernel.at[3].set(2 * kernel[5])
    _, info = updates(params, *batch(key, 16, config), config, hyper)
    assert not np.isfinite(float(info["error_rms"]))
