"""What a network does, as a nested record and as text.

A description is `{type, stats_tr, stats_ts, root}` with the statistics of the whole
network on the training and test set; `root` and every node below it is
`{name, stats_tr, stats_ts, sinks}`. All of it is plain JSON.

Reference: the published program of McGill and Perona (2017).
"""

from collections.abc import Mapping
from typing import Any

from multipath.trees.graph import Layout, layout
from multipath.trees.net import Net
from multipath.trees.statistics import by_node
from shared.errors import UsageError

TYPES = {"sr": "SRNet", "actor": "ActorNet", "critic": "CriticNet"}
"""What the families are called in descriptions and files."""

NAMES = (
    "accuracy",
    "moc",
    "p_cor",
    "p_inc",
    "p_cor_by_cls",
    "p_inc_by_cls",
    "p_tr",
    "c_err",
    "x_rte",
)
"""Statistics, as `statistics.means` calls them."""

_RULE = "─" * 59
_SETS = {"stats_tr": "Training Set", "stats_ts": "Test Set"}


def describe(
    net: Net,
    train_stats: Mapping[str, Any] | None = None,
    test_stats: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the description of a network.

    Args:
        net: which one.
        train_stats, test_stats: from `statistics.means`, as arrays or nested lists,
            other values aside; None or empty for a set that is not described.
    """
    plan = layout(net.root)
    stats = {"stats_tr": train_stats, "stats_ts": test_stats}
    whole, nodes = {}, {}
    for part, found in stats.items():
        whole[part], nodes[part] = _sorted(plan, found)
    return {"type": TYPES[net.family], **whole, "root": _record(plan, 0, nodes)}


def from_metrics(
    net: Net, metrics: Mapping[str, Any], price: int | None = None
) -> dict[str, Any]:
    """Return the description that a line of `metrics.jsonl` holds.

    Args:
        net: which network.
        metrics: with keys such as `test/accuracy`, or `test/k0/accuracy`.
        price: which of its prices of an operation, for an adaptive network.

    Raises:
        UsageError: if there is no statistic in it.
    """
    within = "" if price is None else f"k{price}/"
    train, test = (
        {n: metrics[head + n] for n in NAMES if head + n in metrics}
        for head in (f"train/{within}", f"test/{within}")
    )
    if not train and not test:
        place = "" if price is None else f" at price {price}"
        allowed = "a record of a network that has been trained and evaluated"
        raise UsageError(f"statistics{place}", sorted(metrics), allowed)
    return describe(net, train, test)


def render(desc: Mapping[str, Any], name: str) -> str:
    """Write a description as text, numbers with three digits and without vectors."""
    lines = [f"┌{_RULE}", f"│ {name}", f"├{_RULE}"]
    for part, title in _SETS.items():
        head = f"[{desc['type']}] {_numbers(desc[part])}"
        body = [head, *(f"  {line}" for line in _tree(desc["root"], part))]
        lines += [f"│ {title}:", "│", *(f"│   {line}" for line in body), "│"]
    return "\n".join(lines)


def _sorted(
    plan: Layout, found: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, dict]]:
    if not found:
        return {}, {path: {} for path in plan.paths}
    return by_node(plan, {name: found[name] for name in NAMES if name in found})


def _record(plan: Layout, number: int, stats: dict[str, dict]) -> dict[str, Any]:
    path = plan.paths[number]
    own = {part: nodes[path] for part, nodes in stats.items()}
    sinks = [_record(plan, sink, stats) for sink in plan.sinks[number]]
    return {"name": plan.nodes[number].name, **own, "sinks": sinks}


def _tree(record: Mapping[str, Any], part: str) -> list[str]:
    lines, sinks = [f"{record['name']} {_numbers(record[part])}"], record["sinks"]
    for i, sink in enumerate(sinks, 1):
        first, *rest = _tree(sink, part)
        indent = "| " if i < len(sinks) else "  "
        lines += [f"↳ {first}", *(indent + line for line in rest)]
    return lines


def _numbers(stats: Mapping[str, Any]) -> str:
    scalars = {k: v for k, v in sorted(stats.items()) if not isinstance(v, list)}
    if not scalars:
        return ""
    return "(" + "; ".join(f"{k}={v:.3g}" for k, v in scalars.items()) + ")"
