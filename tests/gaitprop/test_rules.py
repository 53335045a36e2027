"""Rules of credit assignment: what the theory says of them."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from gaitprop import layers, networks, propagation, regulariser, rules
from shared.errors import UsageError
from tests.gaitprop.build import batch, distance, errors, network, quick, updates
from tests.gaitprop.settings import settings

AUXILIARY = (14, 13, 12, 12)
SHAPES = ((12, 12, 12, 12), (14, 13, 12, 10))


@pytest.mark.parametrize(
    ("widths", "kind", "target"),
    (
        (SHAPES[0], "leaky_relu", "offdiag"),
        (SHAPES[0], "linear", "identity"),
        (SHAPES[1], "leaky_relu", "identity"),
        (SHAPES[1], "linear", "offdiag"),
    ),
)
def test_bp_is_the_gradient_of_the_objective(key, widths, kind, target):
    with jax.enable_x64(True):
        changes = {"ortho_weight": 0.1, "ortho_target": target}
        config, hyper = settings(widths=widths, transfer=kind, **changes)
        params = network(key, config, noise=0.3)
        x, labels = batch(key, 6, config)

        def objective(params):
            scores = networks.predict(params, x, config)
            wanted = jax.nn.one_hot(labels, 10)
            data = 0.5 * jnp.sum((scores - wanted) ** 2) / len(x)
            penalties = [
                jnp.sum(regulariser.excess(p["kernel"] @ p["kernel"].T, target) ** 2)
                for p in params
            ]
            return data + 0.1 * sum(penalties)

        ours, _ = updates(params, x, labels, config, hyper)
        assert distance(ours, quick(jax.grad(objective))(params)) < 1e-12


def test_reduction_and_linear_output_follow_the_objective(key):
    with jax.enable_x64(True):
        changes = {"reduction": "sum", "linear_output": True, "loss": "cross_entropy"}
        config, hyper = settings(widths=(14, 12, 12), **changes)
        params = network(key, config, noise=0.3)
        x, labels = batch(key, 6, config)

        def objective(params):
            h = layers.forward(params[0], x, 0.1)
            scores = layers.forward(params[1], h, 1)[:, :10]
            chosen = jax.nn.log_softmax(scores)[jnp.arange(6), labels]
            return -0.5 * jnp.sum(chosen)

        ours, _ = updates(params, x, labels, config, hyper)
        assert distance(ours, quick(jax.grad(objective))(params)) < 1e-12


@pytest.mark.parametrize("widths", SHAPES)
def test_orthogonal_kernels_make_gait_back_propagation(key, widths):
    bp, hyper = settings(widths=widths)
    params = network(key, bp)
    x, labels = batch(key, 6, bp)
    expected, _ = updates(params, x, labels, bp, hyper)
    limit = dataclasses.replace(bp, algorithm="gait", gamma=0.0)
    assert distance(updates(params, x, labels, limit, hyper)[0], expected) < 1e-5
    gait, hyper = settings(widths=widths, algorithm="gait", gamma=1e-3)
    ours, info = updates(params, x, labels, gait, hyper)
    assert float(info["sign_changes"].max()) == 0
    assert distance(ours, expected) < 1e-5


@pytest.mark.parametrize("gamma", (0.0, 1e-3, 0.5))
def test_linear_networks_make_gait_target_propagation(key, gamma):
    with jax.enable_x64(True):
        tp, hyper = settings(algorithm="tp", transfer="linear")
        params = network(key, tp, noise=0.3)
        x, labels = batch(key, 6, tp)
        expected, _ = updates(params, x, labels, tp, hyper)
        gait, hyper = settings(algorithm="gait", transfer="linear", gamma=gamma)
        assert distance(updates(params, x, labels, gait, hyper)[0], expected) < 1e-12


def test_rows_of_other_norms_divide_the_error_by_their_squares(key):
    with jax.enable_x64(True):
        bp, hyper = settings(gamma=0.0)
        params = network(key, bp)
        norms = jnp.linspace(0.5, 2, 12)
        params[-1]["kernel"] = norms[:, None] * params[-1]["kernel"]
        x, labels = batch(key, 6, bp)
        gait = dataclasses.replace(bp, algorithm="gait")
        ours = errors(params, x, labels, gait, hyper)[-2]
        theirs = errors(params, x, labels, bp, hyper)[-2]
        np.testing.assert_allclose(ours, theirs / norms[None] ** 2, atol=1e-14)


@pytest.mark.parametrize("rule", sorted(rules.RULES))
def test_units_without_error_get_no_update(key, rule):
    config, hyper = settings(widths=AUXILIARY, algorithm=rule)
    params = network(key, config, noise=0.3)
    x, labels = batch(key, 6, config)
    grads, _ = updates(params, x.at[:, 4].set(0), labels, config, hyper)
    assert not np.any(grads[-1]["kernel"][:, 10:])
    assert not np.any(grads[-1]["bias"][10:])
    assert not np.any(grads[0]["kernel"][4])
    assert np.all(np.abs(grads[-1]["bias"][:10]) > 0)
    # Layer 2 does not read the last unit of layer 1.
    assert not np.any(grads[0]["bias"][12:])


@pytest.mark.parametrize("rule", sorted(rules.RULES))
def test_perfect_outputs_give_no_update(key, rule):
    with jax.enable_x64(True):
        config, hyper = settings(widths=AUXILIARY, algorithm=rule)
        params = network(key, config, noise=0.3)
        x, labels = batch(key, 6, config)
        h = networks.forward(params, x, config)
        wanted = networks.output_target(h[-1], labels, config)
        perfect = networks.inverse(params, wanted, h, config)[0]
        grads, _ = updates(params, perfect, labels, config, hyper)
        others, _ = updates(params, x, labels, config, hyper)
        for ours, other in zip(grads, others, strict=True):
            bound = 1e-9 * float(jnp.abs(other["kernel"]).max())
            assert float(jnp.abs(ours["kernel"]).max()) < bound


@pytest.mark.parametrize("rule", ("gait", "tp", "itp", "gait_adaptive"))
def test_difference_form_is_the_definition(key, rule):
    with jax.enable_x64(True):
        gamma = 0.05 if rule == "gait_adaptive" else 0.3
        config, hyper = settings(
            widths=(14, 12, 12, 10), algorithm=rule, gamma=gamma, form="subtract"
        )
        params = network(key, config, noise=0.6)
        x, labels = batch(key, 30, config)
        expected, seen = updates(params, x, labels, config, hyper)
        ours = dataclasses.replace(config, form="difference")
        # Moves of this size carry units across zero, where the forms could differ.
        assert float(seen["sign_changes"].max()) > 0
        assert distance(updates(params, x, labels, ours, hyper)[0], expected) < 1e-9


def test_adaptive_gamma_moves_each_sample_by_the_same_length(key):
    with jax.enable_x64(True):
        config, hyper = settings(algorithm="gait_adaptive", gamma=1e-3)
        eps = jax.random.normal(key, (5, 12)).at[2].set(0)
        scale = propagation.fixed_length(None, eps, hyper["gamma"])
        lengths = jnp.linalg.norm(scale * eps, axis=1)
        wanted = jnp.full(5, 1e-3 * 12**0.5).at[2].set(0)
        np.testing.assert_allclose(lengths, wanted, rtol=1e-12)


@pytest.mark.parametrize("hidden", (4, 8))
def test_single_precision_is_enough_at_any_depth(key, hidden):
    with jax.enable_x64(True):
        widths = (16,) * (hidden + 2)
        config, hyper = settings(widths=widths, algorithm="gait", gamma=1e-3)
        params = network(key, config, noise=0.2)
        x, labels = batch(key, 8, config)
        golden, _ = updates(params, x, labels, config, hyper)
        single = jax.tree.map(lambda a: a.astype(np.float32), (params, x, hyper))
        ours, _ = updates(single[0], single[1], labels, config, single[2])
        assert ours[0]["kernel"].dtype == jnp.float32
        assert distance(ours, golden) < 1e-4


def test_gait_is_automatic_differentiation_with_the_inverse(key):
    with jax.enable_x64(True):
        config, hyper = settings(algorithm="gait", gamma=0.0)
        params = network(key, config, noise=0.3)
        x, labels = batch(key, 6, config)

        def objective(params):
            h = x
            for p in params:
                z = layers.gait_dense(p["kernel"], p["bias"], h)
                h = jnp.where(z >= 0, z, 0.1 * z)
            wanted = jax.nn.one_hot(labels, 10)
            return 0.5 * jnp.sum((h[:, :10] - wanted) ** 2) / len(x)

        ours, _ = updates(params, x, labels, config, hyper)
        assert distance(ours, quick(jax.grad(objective))(params)) < 1e-12


def test_feedback_alignment_through_the_kernels_is_back_propagation(key):
    config, hyper = settings(algorithm="feedback_alignment")
    params = network(key, config, noise=0.3)
    x, labels = batch(key, 6, config)
    drawn = rules.init_rule_state(key, params, config, hyper)
    for feedback in drawn:
        np.testing.assert_allclose(feedback @ feedback.T, np.eye(12), atol=1e-5)
    own = tuple(p["kernel"] for p in params[1:])
    step = quick(rules.gradients, static_argnames="config")
    ours, (kept, _) = step(params, own, x, labels, hyper, config)
    assert distance(kept, own) == 0
    bp = dataclasses.replace(config, algorithm="bp")
    assert distance(ours, updates(params, x, labels, bp, hyper)[0]) < 1e-5


@pytest.mark.parametrize("rule", ("gait", "tp"))
def test_learned_inverse_starts_exact_and_follows_its_gradient(key, rule):
    with jax.enable_x64(True):
        config, hyper = settings(
            widths=(14, 12, 10), algorithm=rule, inverse="learned", optimizer="sgd"
        )
        params = network(key, config, noise=0.3)
        x, labels = batch(key, 6, config)
        state = rules.init_rule_state(key, params, config, hyper)
        step = quick(rules.gradients, static_argnames="config")
        ours, _ = step(params, state, x, labels, hyper, config)
        exact = dataclasses.replace(config, inverse="exact")
        assert distance(ours, updates(params, x, labels, exact, hyper)[0]) < 1e-11
        random = dataclasses.replace(config, inverse="learned_random")
        state = rules.init_rule_state(key, params, random, hyper)
        _, (after, _) = step(params, state, x, labels, hyper, random)
        h = networks.forward(params, x, config)

        def loss(learned):
            z = jnp.where(h[2] >= 0, h[2], h[2] / 0.1) - learned["bias"][None]
            return 0.5 * jnp.sum((z @ learned["kernel"] - h[1][:, :10]) ** 2) / len(x)

        slope = quick(jax.grad(loss))(state["layers"][0])
        rate = hyper["learning_rate"]
        expected = jax.tree.map(lambda a, g: a - rate * g, state["layers"][0], slope)
        assert distance(after["layers"][0], expected) < 1e-12


@pytest.mark.parametrize("rule", ("gait", "tp"))
def test_forms_differ_by_what_a_learned_inverse_cannot_reconstruct(key, rule):
    with jax.enable_x64(True):
        changes = {"algorithm": rule, "inverse": "learned", "gamma": 0.1}
        config, hyper = settings(widths=(12, 12, 12), form="subtract", **changes)
        other = dataclasses.replace(config, form="difference")
        params = network(key, config, noise=0.3)
        x, labels = batch(key, 6, config)
        step = quick(rules.gradients, static_argnames="config")
        state = rules.init_rule_state(key, params, config, hyper)

        def first_bias(config, state):
            return step(params, state, x, labels, hyper, config)[0][0]["bias"]

        exact = first_bias(config, state), first_bias(other, state)
        assert distance(*exact) < 1e-9
        # An inverse that is off by a constant d shifts targets by d, errors by -d / s.
        layer = state["layers"][0]
        shift = 0.01 * jnp.ones(12)
        layer = {**layer, "bias": layer["bias"] - shift @ params[1]["kernel"]}
        h = networks.forward(params, x, config)
        slope = jnp.where(h[1] >= 0, 1.0, 0.1)
        scale = 1.0 if rule == "tp" else 0.1
        moved = first_bias(config, {**state, "layers": (layer,)}) - exact[0]
        expected = -(slope * shift[None] / scale).mean(axis=0)
        np.testing.assert_allclose(moved, expected, rtol=1e-8)
        kept = first_bias(other, {**state, "layers": (layer,)})
        assert distance(kept, exact[1]) < 1e-12


def test_vmap_over_seeds_and_settings_is_a_loop(key):
    changes = {"gamma": 0.3, "ortho_weight": 0.1, "solver": "refine"}
    config, hyper = settings(algorithm="gait", **changes)
    x, labels = batch(key, 6, config)
    many = jax.tree.map(lambda v: jnp.stack([v, 2 * v, 3 * v]), hyper)
    keys = jax.random.split(key, 3)

    def run(key, hyper):
        params = network(key, config, noise=0.1)
        return updates(params, x, labels, config, hyper)[0]

    together = jax.vmap(run)(keys, many)
    for i in range(3):
        alone = run(keys[i], jax.tree.map(lambda v, i=i: v[i], many))
        assert distance(jax.tree.map(lambda v, i=i: v[i], together), alone) < 1e-5


def test_update_reports_scalars(key):
    config, hyper = settings(algorithm="gait", solver="refine")
    params = network(key, config)
    state = rules.init_rule_state(key, params, config, hyper)
    update = quick(rules.make_update(config))
    grads, (after, metrics) = update(params, state, batch(key, 6, config), key, hyper)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {v.shape for v in metrics.values()} == {()}
    assert {"accuracy", "mse", "residual", "sweeps", "fallbacks"} <= set(metrics)


def test_limit_has_no_subtract_form(key):
    config, hyper = settings(algorithm="gait", form="subtract", gamma=0.0)
    params = network(key, config)
    with pytest.raises(UsageError, match="gamma"):
        updates(params, *batch(key, 6, config), config, hyper)


def test_unknown_rule_names_the_closest(key):
    config, hyper = settings(algorithm="gate")
    with pytest.raises(UsageError, match="gait"):
        rules.init_rule_state(key, (), config, hyper)
