"""Claim: operations that are not needed take no time.

An actor chain of the published size classifies images of 32 x 32. `layers`: routers are
set so that given shares of images stop at each switch, and the time of a batch is
compared with the whole network's and with the sum over layers of (share of images that
run it x its time alone at the full batch). `prices`: one network, trained on
`digits-hybrid` while its price of an operation rises, at each of the prices. `budgets`:
the same network under thresholds calibrated for budgets of operations and of time,
with what an image costs on the test set.

At a batch of 256 the time is to be at most 1.25 x the sum + 5 % of the whole network's
time, and below the latter wherever at most half of the operations are done. Whole
network: `forward.apply`, compiled, on at most 512 images at once. A batch of one goes
through `predict_one`. Least times of repeats in turn. Exit status 1 if a limit is
exceeded, 2 if no batch of 256 was asked for, so that nothing is judged.

    python -m benchmarks.skipping [--only layers prices budgets] [--batches 1 32 256]
        [--arch paper|small] [--steps 150] [--repeats 7] [--out DIR]
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.mask_step import least
from multipath.trees import anytime, data, forward, graph, inference, layers, train
from multipath.trees import net as networks
from multipath.trees.config import Config, network
from multipath.trees.graph import layout
from multipath.trees.net import Net
from multipath.trees.stages import Thresholds, classifier_of, routes
from shared import plotting
from shared.config import split
from shared.model import Variables

STOPPING = (0.0, 0.05, 0.15, 0.3, 0.5, 0.8)
"""Shares of the images at a switch that are made to stop there."""

PRICES = (0.0, 4e-9, 1.6e-8, 6.4e-8, 2.56e-7)
BUDGETS = (0.1, 0.25, 0.5, 0.75)
"""Parts of the way from the cheapest to the dearest path."""

ARCHS = {"paper": graph.ARCH, "small": ((8, 8, 8), (8, 8, 8), (16, 16), (16,))}
BLOCK, JUDGED = 512, 256


class Case(NamedTuple):
    """A network to be timed.

    Attributes:
        net, variables: the network.
        thresholds: when images stop; None follows the routers.
        budget: largest mean cost of an image that they were chosen for.
        unit: of the budget; empty without one.
    """

    net: Net
    variables: Variables
    thresholds: Thresholds | None = None
    budget: float = np.nan
    unit: str = ""

    @property
    def rule(self) -> str | None:
        """What is compared to thresholds."""
        return None if self.thresholds is None else self.thresholds.rule


class Row(NamedTuple):
    """What was measured of one network at one batch.

    Attributes:
        operations, seconds: means of an image and time of the batch, both as shares of
            the whole network's.
        reached: sum over layers of share of images x time alone, also as a share.
        whole: seconds of the whole network.
        accuracy: share of right labels.
        costs: operations and milliseconds of an image, by unit.
    """

    operations: float
    seconds: float
    reached: float
    whole: float
    accuracy: float
    costs: dict[str, float]

    @property
    def bound(self) -> float:
        """Largest share of the time that is allowed."""
        return 1.25 * self.reached + 0.05


def whole_network(net: Net, variables: Variables, images: Any) -> Callable[[], Any]:
    """Return what evaluates every node on a batch."""
    params, state = variables
    run = jax.jit(lambda params, state, x: forward.apply(net, params, state, x)[0])
    blocks = [jnp.asarray(images[i : i + BLOCK]) for i in range(0, len(images), BLOCK)]
    return lambda: jax.block_until_ready([run(params, state, x) for x in blocks])


def layers_alone(case: Case, images: Any) -> dict[int, Callable[[], Any]]:
    """Return what runs each node, with its router if that runs, on the whole batch."""
    net, variables = case.net, case.variables
    plan, nodes = layout(net.root), networks.node_variables(net, variables)
    signals: dict[int, Any] = {-1: jnp.asarray(images)}
    runs = {}
    for i, node in enumerate(plan.nodes):

        def alone(own, x, node=node):
            live = forward.live_scales(plan.groups[plan.grouped[i][0]])  # noqa: B023
            params, state = own
            y = layers.apply(node.chain, params, state, x, layers.Pass(live=live)).x
            if node.router is None or not routes(node, case.rule):
                return y, None
            given = params["r"], state["r"], y, layers.Pass()
            return y, layers.apply(node.router, *given).x

        run, x = jax.jit(alone), signals[plan.parents[i]]
        own = nodes[plan.paths[i]]
        signals[i] = run(own, x)[0]
        runs[i] = lambda run=run, own=own, x=x: jax.block_until_ready(run(own, x))
    return runs


def skipping(case: Case, images: Any) -> Callable[[], inference.Answer]:
    """Return what classifies a batch along its ways."""
    net, variables, thresholds = case[:3]
    if len(images) > 1:
        predict = inference.make_predict(net, variables, thresholds=thresholds)
        return lambda: predict(images)
    run = jax.jit(lambda v, x: inference.predict_one(net, v, x, thresholds=thresholds))
    one = lambda: jax.block_until_ready(run(variables, images[0]))
    return lambda: inference.Answer(*(np.asarray(a)[None] for a in one()))


def shares(case: Case, leaves: np.ndarray) -> np.ndarray:
    """Return the share of images that each node runs on `[nodes]`.

    Args:
        case: the network.
        leaves: where each image ended, by the place among the leaves.
    """
    plan = layout(case.net.root)
    found = np.zeros(len(plan.nodes))
    for leaf, place in enumerate(plan.leaves):
        node, share = place, float(np.mean(leaves == leaf))
        while node >= 0:
            found[node] += share
            node = plan.parents[node]
    for switch in plan.switches:
        position = classifier_of(plan.nodes[switch], case.rule)
        if position is not None:
            # Asked about all images, also about those that it does not stop.
            found[plan.sinks[switch][position]] = found[switch]
    return found


def measure(case: Case, images: Any, labels: Any, repeats: int) -> Row:
    """Time a batch along its ways, through all nodes, and each node alone."""
    run = skipping(case, images)
    runs: dict[Any, Any] = {
        "ours": run,
        "whole": whole_network(case.net, case.variables, images),
    }
    if len(images) == JUDGED:
        runs |= layers_alone(case, images)
    answer = run()
    seconds: dict[Any, float] = least(runs, repeats)
    parts = enumerate(shares(case, answer.leaves))
    reached = sum(share * seconds.get(i, np.nan) for i, share in parts)
    total = np.sum(networks.operations(case.net))
    return Row(
        float(answer.operations.mean() / total),
        seconds["ours"] / seconds["whole"],
        float(reached / seconds["whole"]),
        seconds["whole"],
        float(np.mean(answer.labels == labels)),
        {
            "operations": float(answer.operations.mean()),
            "milliseconds": 1e3 * seconds["ours"] / len(images),
        },
    )


def told(name: str, case: Case, batch: int, row: Row) -> bool:
    """Print a row; return whether it is within the limits, at the batch judged."""
    line = (
        f"{name:24} batch {batch:4}   whole {1e3 * row.whole:8.2f} ms   "
        f"operations {row.operations:6.1%}   time {row.seconds:6.1%}   "
        f"accuracy {row.accuracy:6.1%}"
    )
    if case.unit:
        line += f"   {row.costs[case.unit]:.4g} of {case.budget:.4g} {case.unit}"
    if batch != JUDGED:
        print(line, flush=True)
        return True
    good = row.seconds <= row.bound and (row.operations > 0.5 or row.seconds < 1)
    verdict = "within" if good else "NOT within"
    print(f"{line}   layers {row.reached:6.1%}, {verdict} {row.bound:.1%}", flush=True)
    return good


def forced(net: Net, variables: Variables, images: Any, share: float) -> Variables:
    """Draw routers at random, and let a share of the images stop at each switch."""
    plan, nodes = layout(net.root), networks.node_variables(net, variables)
    rng = np.random.default_rng(0)
    for switch in plan.switches:
        last = nodes[plan.paths[switch]].params["r"]["c7"]
        last["w"] = jnp.asarray(rng.normal(size=last["w"].shape), jnp.float32)
    drawn = networks.from_node_variables(net, nodes)
    scores = forward.apply(net, *drawn, jnp.asarray(images))[0].scores
    margins, left = np.asarray(scores[..., 0] - scores[..., 1]), np.ones(len(images))
    for switch, margin in zip(plan.switches, margins, strict=True):
        stops = np.quantile(margin[left > 0], 1 - share) if share else np.inf
        shift = min(stops, 1e6)
        last = nodes[plan.paths[switch]].params["r"]["c7"]
        last["b"] = jnp.array([-shift, 0.0], jnp.float32)
        left = left * (margin < stops)
        if not left.any():
            break
    return networks.from_node_variables(net, nodes)


def trained(
    sets: data.TreeData, arch: str, steps: int
) -> dict[float, tuple[Net, Variables]]:
    """Train one network whose price rises every so many updates."""
    config = Config(
        dataset="digits-hybrid",
        arch=tuple(",".join(map(str, channels)) for channels in ARCHS[arch]),
        lr_half=float(2 * steps * len(PRICES)),
        tau_half=float(2 * steps * len(PRICES)),
    )
    static, hyper = split(config)
    height, width, colours = sets.train.images.shape[1:]
    net = network(static, (height, width, colours), sets.classes)
    program = train.build(static, net)
    state, rng = program.init(jax.random.key(0), hyper), np.random.default_rng(0)
    step, found = jax.jit(program.step, donate_argnums=0), {}
    # Operations of a small network are dearer, so that they matter as much.
    scale = 2e7 / float(np.sum(networks.operations(net)))
    for price in PRICES:
        now = {**state.hyper, "k_cpt": jnp.asarray(price * scale, jnp.float32)}
        state = state._replace(hyper=now)
        for _ in range(steps):
            rows = rng.integers(0, len(sets.train.labels), config.batch)
            state, _ = step(state, jax.tree.map(lambda a: a[rows], sets.train))  # noqa: B023
        kept = jax.tree.map(jnp.array, (state.params, state.state))
        found[price * scale] = net, Variables(*kept)
    return found


def main() -> int:
    """Print the tables, draw them; return the exit status."""
    parser = argparse.ArgumentParser(description="Time networks that skip layers.")
    parts = ("layers", "prices", "budgets")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256, 4096])
    parser.add_argument("--arch", choices=list(ARCHS), default="paper")
    parser.add_argument("--steps", type=int, default=150, help="updates at each price")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", help="directory of the picture")
    options = parser.parse_args()
    sets, good, rows = data.load("digits-hybrid", valid_fraction=0.25), True, {}
    order = np.random.default_rng(1).permutation(len(sets.test.labels))
    order = np.resize(order, max(*options.batches, JUDGED))
    test = [np.asarray(part)[order] for part in sets.test]
    cases: dict[str, Case] = {}
    if "layers" in options.only:
        blocks = graph.Blocks(sets.classes, ARCHS[options.arch])
        net = Net("actor", graph.dr_chain(blocks), test[0].shape[1:], sets.classes)
        start = networks.init(jax.random.key(0), net)
        for share in STOPPING:
            variables = forced(net, start, test[0][:JUDGED], share)
            cases[f"layers: {share:.0%} stop"] = Case(net, variables)
    if {"prices", "budgets"} & set(options.only):
        nets = trained(sets, options.arch, options.steps)
        if "prices" in options.only:
            cases |= {f"prices: {k:.2g}": Case(*one) for k, one in nets.items()}
        if "budgets" in options.only:
            cases |= calibrated(*nets[0.0], sets)
    for name, case in cases.items():
        for batch in options.batches:
            images, labels = (part[:batch] for part in test)
            row = measure(case, images, labels, options.repeats)
            good &= told(name, case, batch, row)
            rows[name, batch] = row
    if options.out:
        draw(rows, options.batches, options.out)
    if JUDGED not in options.batches:
        print(f"nothing was judged, which takes --batches {JUDGED}")
        return 2
    return int(not good)


def calibrated(net: Net, variables: Variables, sets: data.TreeData) -> dict[str, Case]:
    """Choose thresholds on the validation set for budgets of operations and of time."""
    rows = np.random.default_rng(2).permutation(len(sets.valid.labels))
    images, labels = (np.asarray(part)[rows] for part in sets.valid)
    costs = {
        "operations": anytime.path_operations(net, "confidence").astype(float),
        "milliseconds": anytime.path_milliseconds(
            net, variables, images[:JUDGED], "confidence"
        ),
    }
    cases = {}
    for unit, cost in costs.items():
        for part in BUDGETS:
            budget = float(cost.min() + part * np.ptp(cost))
            found = anytime.calibrate(
                net, variables, images, labels, budget=budget, unit=unit
            )
            name = f"budgets: {budget:.4g} {unit[:5]}."
            cases[name] = Case(net, variables, found.thresholds, budget, unit)
            print(f"{name:24} validation: {found.accuracy:.1%} at {found.cost:.4g}")
    return cases


def draw(rows: dict[tuple[str, int], Row], batches: list[int], out: str) -> None:
    """Plot time against operations, and against the price."""
    parts = {"layers": "forced routers", "prices": "prices", "budgets": "thresholds"}
    with plotting.style():
        figure, axes = plotting.figure(1, 2, title="Time of networks that skip layers")
        for i, batch in enumerate(batches):
            for part, marker in zip(parts, "o^s", strict=True):
                own = [
                    r for (n, b), r in rows.items() if b == batch and n.startswith(part)
                ]
                if own:
                    label = f"batch {batch}, {parts[part]}"
                    x, y = zip(*[(r.operations, r.seconds) for r in own], strict=True)
                    axes[0, 0].scatter(
                        x,
                        y,
                        s=16,
                        marker=marker,
                        color=plotting.PALETTE[i],
                        label=label,
                    )
            curve = [
                (float(name.split()[1]), 1 / row.seconds)
                for (name, b), row in rows.items()
                if b == batch and name.startswith("prices")
            ]
            if curve:
                x, y = zip(*curve, strict=True)
                colour = plotting.PALETTE[i]
                axes[0, 1].plot(x, y, "o-", color=colour, label=f"batch {batch}")
        judged = [row for (_, batch), row in rows.items() if batch == JUDGED]
        axes[0, 0].scatter(
            [r.operations for r in judged],
            [r.reached for r in judged],
            s=40,
            facecolors="none",
            edgecolors="black",
            label="layers x reach",
        )
        axes[0, 0].plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        if any(name.startswith("prices") for name, _ in rows):
            axes[0, 1].set_xscale("symlog", linthresh=1e-9)
        plotting.describe(
            axes[0, 0], x="share of operations", y="share of time", legend="outside"
        )
        plotting.describe(
            axes[0, 1], x="price of an operation", y="speed-up", legend="outside"
        )
        for path in plotting.save(figure, f"{out}/skipping"):
            print(path)


if __name__ == "__main__":
    raise SystemExit(main())
