"""Routed cells: plain ones within them, the order of steps, stops, padding."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import numpy as jnp

from multipath.routing_networks import cells, lstm, trajectory
from multipath.routing_networks.decision import Decision
from multipath.routing_networks.rewards import Reward
from shared.errors import UsageError
from shared.layers import recurrent
from tests.quick import quick

BATCH, TIME, INPUTS, HIDDEN, K = 4, 2, 3, 5, 3
ROUTER = Decision("r", "reinforce", K, 1)
BOTH = lstm.Cell(INPUTS, HIDDEN, ROUTER, routed=("i2h", "h2h"))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def drawn_actions(cell, low=0, high=K, seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(low, high, (TIME * cell.calls, BATCH)), jnp.int32)


def begin(x, **options):
    return trajectory.initialize(x, **options)[1]


def scanned(cell, params, x, agents=None, **options):
    """Return outputs and last state, and the trajectory."""
    both, found, _ = lstm.lstm_scan(cell, params, x, begin(x), agents, **options)
    return both, found


@pytest.fixture(scope="module")
def x():
    return draw(BATCH, TIME, INPUTS)


def test_a_scan_is_a_loop_of_steps(x):
    reward = Reward("collaboration", window=7)
    router = dataclasses.replace(ROUTER, agents=2, reward=reward)
    cell = dataclasses.replace(BOTH, router=router)
    forced = drawn_actions(cell)
    agents, mask = (
        jnp.array([1, 0, 0, 1]),
        jnp.ones((BATCH, TIME), bool).at[2, 1].set(False),
    )

    @quick
    def both():
        params, memory = lstm.init(jax.random.key(0), cell)
        options = {"train": True, "forced": forced}
        loop, state, hidden = begin(x, memory=memory), None, []
        for t in range(TIME):
            rows = slice(t * cell.calls, (t + 1) * cell.calls)
            now = {
                **options,
                "state": state,
                "mask": mask[:, t],
                "forced": forced[rows],
            }
            state, loop, _ = lstm.lstm_step(cell, params, x[:, t], loop, agents, **now)
            hidden.append(state.h)
        (h, last), scan, _ = lstm.lstm_scan(
            cell, params, x, begin(x), agents, mask=mask, **options
        )
        found = [
            (h, last, scan.memory["r"], steps(scan)),
            (jnp.stack(hidden, 1), state, loop.memory["r"], steps(loop)),
        ]
        return found, scan

    def steps(found):
        names = ("action", "mask", "agent")
        return [trajectory.gathered(found, name) for name in names]

    (scan, loop), taken = both()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), scan, loop)
    action, executed, _ = scan[-1]
    expected = jnp.repeat(mask.T, cell.calls, 0)
    np.testing.assert_array_equal(executed, expected)
    np.testing.assert_array_equal(action, jnp.where(expected, forced, 0))
    places = {s.decision.name: s.positions for s in taken.steps}
    assert places == {"r_i2h0": (0, 2), "r_h2h0": (1, 3)}


def test_one_module_is_a_plain_lstm_with_its_gradients(x):
    cell = lstm.Cell(
        INPUTS, HIDDEN, dataclasses.replace(ROUTER, actions=1), routed=("i2h", "h2h")
    )
    params = quick(lambda: lstm.init(jax.random.key(0), cell).params)()
    initial = lstm.LSTMState(draw(BATCH, HIDDEN), draw(BATCH, HIDDEN, seed=2))

    def routed(modules, x):
        own = {**params, "modules": modules}
        return jnp.sum(scanned(cell, own, x, state=initial)[0][0] ** 2)

    def plain(modules, x):
        # Blocks of the two are in the orders i, f, o, g and i, f, g, o.
        swapped = lambda a: a[0][..., jnp.r_[0:10, 15:20, 10:15]]
        i2h, h2h = (jax.tree.map(swapped, modules[f"r_{s}0"]) for s in cells.STREAMS)
        own = {
            "kernel": i2h["kernel"],
            "recurrent": h2h["kernel"],
            "bias": i2h["bias"],
            "recurrent_bias": h2h["bias"],
        }
        return jnp.sum(recurrent.lstm(own, x, initial)[0] ** 2)

    found, expected = quick(
        lambda m: [jax.value_and_grad(f, (0, 1))(m, x) for f in (routed, plain)]
    )(params["modules"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found,
        expected,
    )


def test_one_module_is_a_plain_gru(x):
    cell = lstm.Cell(
        INPUTS,
        HIDDEN,
        dataclasses.replace(ROUTER, actions=1),
        routed=("i2h", "h2h"),
        kind="gru",
    )

    @quick
    def both():
        params = lstm.init(jax.random.key(0), cell).params
        i2h, h2h = (
            jax.tree.map(lambda a: a[0], params["modules"][f"r_{s}0"])
            for s in cells.STREAMS
        )
        own = {}
        for j, block in enumerate("rzn"):
            part = slice(j * HIDDEN, (j + 1) * HIDDEN)
            one, other = ({k: v[..., part] for k, v in m.items()} for m in (i2h, h2h))
            if block != "n":
                one["bias"] += other.pop("bias")
            own |= {f"i{block}": one, f"h{block}": other}
        h, expected = jnp.zeros((BATCH, HIDDEN)), []
        for t in range(TIME):
            h, _ = nn.GRUCell(HIDDEN).apply({"params": own}, h, x[:, t])
            expected.append(h)
        return scanned(cell, params, x)[0][0], jnp.stack(expected, 1)

    np.testing.assert_allclose(*both(), atol=1e-6)


@pytest.mark.parametrize("compat", [False, True])
def test_the_first_action_ends_a_map_in_the_published_program_only(x, compat):
    router = dataclasses.replace(ROUTER, compat=compat)
    cell = lstm.Cell(INPUTS, HIDDEN, router, depth=2)
    forced = jnp.array([[0, 0, 1, 2], [0, 1, 0, 2]])
    x = x[:, 0]

    @quick
    def run():
        params = lstm.init(jax.random.key(0), cell).params

        def step(modules):
            own = {**params, "modules": modules}
            h = draw(BATCH, HIDDEN, seed=2)
            state, taken, _ = lstm.lstm_step(
                cell, own, x, begin(x), None, state=lstm.LSTMState(h, h), forced=forced
            )
            return jnp.sum(state.c[:2] ** 2), (state, taken)

        grads, (state, taken) = jax.grad(step, has_aux=True)(params["modules"])
        alone = cells.advance(
            x @ params["modules"]["i2h"]["kernel"]
            + params["modules"]["i2h"]["bias"][None],
            jnp.zeros((BATCH, 4 * HIDDEN)),
            lstm.LSTMState(*2 * (draw(BATCH, HIDDEN, seed=2),)),
        )
        return grads, state, taken, alone

    grads, state, taken, alone = run()
    used = np.any(grads["r_h2h0"]["kernel"], (1, 2)).tolist()
    ended = np.isclose(state.h, alone.h).all(1).tolist()
    lengths = np.sum(trajectory.masks(taken), 0).tolist()
    if compat:
        assert used == [False, False, False]
        assert ended == [True, True, True, False]
        assert lengths == [1, 1, 2, 2]
    else:
        assert used == [True, False, False]
        assert ended == [False] * 4
        assert lengths == [2, 2, 2, 2]


def test_padding_changes_nothing(x):
    cell = dataclasses.replace(BOTH, routed=("h2h",))
    lengths = jnp.array([1, 2, 2, 0])
    forced = drawn_actions(cell)

    @quick
    def run():
        params = lstm.init(jax.random.key(0), cell).params
        whole, taken = scanned(cell, params, x, forced=forced)
        other = jnp.where(
            jnp.arange(TIME)[None, :, None] < lengths[:, None, None], x, 9.0
        )
        padded, shorter = scanned(cell, params, other, lengths=lengths, forced=forced)
        return whole, padded, trajectory.masks(shorter)

    (h, _), (found, last), masks = run()
    for row, length in enumerate(lengths.tolist()):
        np.testing.assert_allclose(found[row, :length], h[row, :length], atol=1e-6)
        assert not np.any(found[row, length:])
        expected = h[row, length - 1] if length else np.zeros(HIDDEN)
        np.testing.assert_allclose(cells.output(last)[row], expected, atol=1e-6)
    np.testing.assert_array_equal(np.sum(masks, 0), lengths * cell.calls)


def test_a_recurrent_map_applies_modules_until_it_stops(x):
    cell = lstm.Cell(INPUTS, HIDDEN, ROUTER, 3, routed=("i2h",), recurrent=True)
    # Action a is module a - 1.
    forced = np.array([[0, 2, 1, 3], [0, 0, 3, 3], [0, 0, 0, 3]])
    x = x[:, 0]

    @quick
    def run():
        params = lstm.init(jax.random.key(0), cell).params
        state, taken, _ = lstm.lstm_step(
            cell, params, x, begin(x), None, forced=jnp.asarray(forced)
        )
        return params["modules"], state, taken

    modules, state, taken = run()
    kernel, bias = (np.asarray(modules["r_i2h"][n]) for n in ("kernel", "bias"))
    value = np.array(x)
    for row in range(BATCH):
        for number, action in enumerate(forced[:, row]):
            if action == 0:
                break
            given = np.maximum(value[row], 0) if number else value[row]
            value[row] = given @ kernel[action - 1] + bias[action - 1]
    after = lambda v, own: v @ np.asarray(own["kernel"]) + np.asarray(own["bias"])
    zeros = np.zeros((BATCH, HIDDEN))
    first = cells.advance(
        jnp.asarray(after(value, modules["i2h"])),
        jnp.asarray(after(zeros, modules["h2h"])),
        lstm.zero_state(cell, BATCH),
    )
    np.testing.assert_allclose(state.h, first.h, atol=1e-6)
    np.testing.assert_array_equal(np.sum(trajectory.masks(taken), 0), [1, 2, 3, 3])
    assert [s.decision.actions for s in taken.steps] == [K + 1]


def test_sampled_actions_differ_between_calls_and_can_be_replayed(x):
    cell = dataclasses.replace(BOTH, routed=("h2h",))

    @quick
    def run():
        params = lstm.init(jax.random.key(0), cell).params
        long, key = jnp.tile(x, (1, 6, 1)), jax.random.key(1)
        (h, _), taken = scanned(cell, params, long, train=True, key=key)
        actions = trajectory.actions(taken)
        (again, _), _ = scanned(cell, params, long, train=True, forced=actions)
        return h, again, actions

    h, again, actions = run()
    np.testing.assert_array_equal(h, again)
    assert (np.std(actions, 0) > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"routed": ()}, "routed"),
        ({"routed": ("h2h", "h2h")}, "routed"),
        ({"routed": ("h2i",)}, "Did you mean"),
        ({"kind": "lstn"}, "Did you mean 'lstm'"),
        ({"depth": 0}, "depth"),
        (
            {"recurrent": True, "router": dataclasses.replace(ROUTER, compat=True)},
            "recurrent",
        ),
    ),
)
def test_settings_that_make_no_cell(changes, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(BOTH, **changes)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"forced": jnp.full((4, BATCH), K)}, "forced: got 3"),
        ({"forced": jnp.zeros((2, BATCH), jnp.int32)}, "a row for each call"),
        ({"mask": jnp.zeros((BATCH, TIME), bool)}, "mask"),
        ({"train": True}, "key"),
        ({"x": draw(BATCH, TIME, INPUTS + 1)}, r"x: .*expected shape \(4, 2, 3\)"),
        ({"mask": jnp.ones((TIME, BATCH), bool)}, r"mask: .*expected shape \(4, 2\)"),
        ({"lengths": jnp.ones(BATCH - 1, jnp.int32)}, "lengths: .*4 numbers"),
        ({"lengths": jnp.full(BATCH, TIME + 1)}, "lengths: got 3, .* from 0 to 2"),
        ({"noise": jnp.ones((3, BATCH, K))}, "noise: .*4 rows, one for each call"),
    ),
)
def test_calls_that_make_no_sense(x, options, message):
    made = lambda: lstm.init(jax.random.key(0), BOTH).params
    params = jax.tree.map(lambda a: jnp.zeros(a.shape), jax.eval_shape(made))
    with pytest.raises(UsageError, match=message):
        scanned(BOTH, params, **{"x": x, **options})


def test_forced_actions_where_none_are_taken_may_be_anything(x):
    mask = jnp.ones((BATCH, TIME), bool).at[1, 0].set(False)
    forced = drawn_actions(BOTH)
    run = lambda forced: jax.eval_shape(
        lambda key: scanned(
            BOTH, lstm.init(key, BOTH).params, x, mask=mask, forced=forced
        )[0][0],
        jax.random.key(0),
    )
    assert run(forced.at[: BOTH.calls, 1].set(K)).shape == (BATCH, TIME, HIDDEN)
    with pytest.raises(UsageError, match="forced: got 3"):
        run(forced.at[BOTH.calls, 1].set(K))
