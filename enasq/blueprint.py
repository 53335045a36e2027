"""A trained fixed network as steps, norms not yet folded.

The walk is that of `enasq.fixed`; variables become NumPy arrays.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from enasq import cell as cells
from enasq import exact, fixed, layers, quantization, thresholds
from enasq.fixed import Branch, Fixed
from enasq.graph import Graph, Step
from enasq.plan import Cell, Source
from enasq.policy import Precision, activation_kind, kind_of
from enasq.quantization import Quantizer
from enasq.records import KERNELS
from shared import groups
from shared.errors import UsageError
from shared.model import Variables

Tree = dict[str, Any]


def blueprint(
    net: Fixed,
    variables: Variables,
    *,
    mean: Sequence[float | int],
    std: Sequence[float | int],
    labels: Sequence[str] = (),
    form: str = "exact",
) -> Graph:
    """Return a network's steps.

    Args:
        net: from `fixed.describe`.
        variables: trained; running statistics are those of evaluation.
        mean, std: of each channel; a network reads (pixel - mean) / std.
        labels: names of the classes; by default their numbers.
        form: "exact", with integer codes, or "float".

    Raises:
        UsageError: if some convolution of the policy reads floats, has codes that
            cannot be packed or too large sums (form "exact"), for activations that no
            form has, other lengths of mean, std and labels, and norms that are not
            finite.
    """
    network = net.plan.network
    why = exact.obstacle(network, net.policy, net.arc)
    if form == "exact" and why:
        hint = "Train with a policy of `policy.deployable`, or use `export_float`."
        raise UsageError("policy", why, "a deployable one", hint)
    names = list(labels) or [str(number) for number in range(network.classes)]
    lengths = {"mean": network.channels, "std": network.channels}
    for what, given in (("mean", mean), ("std", std)):
        if len(given) != lengths[what]:
            raise UsageError(what, given, f"{lengths[what]} numbers, one a channel")
    if len(names) != network.classes:
        raise UsageError("labels", names, f"{network.classes} names")
    info = {
        "size": network.size,
        "channels": network.channels,
        "classes": network.classes,
        "labels": names,
    }
    walk = _Walk(net, jax.tree.map(np.asarray, variables), form)
    walk.run(np.asarray(mean, np.float32), np.asarray(std, np.float32))
    return Graph(form, info, tuple(walk.steps))


class _Walk:
    """Collects steps; values are numbers of steps."""

    def __init__(self, net: Fixed, variables: Variables, form: str):
        self.net, self.form = net, form
        self.params, self.state = variables
        self.steps: list[Step] = []
        self.codes: dict[tuple[int, Quantizer], int] = {}
        self.coders: dict[Quantizer, Any] = {}

    def add(self, op: str, name: str, inputs: Sequence[int], arrays=None, **options):
        """Add a step and return its value."""
        self.steps.append(Step(op, name, tuple(inputs), options, arrays or {}))
        return len(self.steps) - 1

    def run(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Add all steps."""
        bits = self.net.policy.image_bits
        arrays = {"mean": mean, "std": std}
        image = self.add("image", "image", (), arrays, bits=bits)
        params, state = self.params["stem"], self.state["stem"]
        stem = self.net.policy.stem, bits
        x = self.conv("stem", image, params, state, *stem)
        before = last = x
        for cell in self.net.plan.cells:
            before, last = last, self.cell(cell, (before, last))
        self.head(last)

    def cell(self, cell: Cell, inputs: tuple[int, int]) -> int:
        """Add a cell and return its output."""
        net, name = self.net, f"cell_{cell.number}"
        own = net.policy.of_cell(cell.number)
        params, state = self.params[name], self.state[name]
        part = lambda key: (f"{name}/{key}", params.get(key, {}), state.get(key, {}))
        nodes = [
            self.fit(x, source, own, *part(f"input_{number}"))
            for number, (x, source) in enumerate(zip(inputs, cell.sources, strict=True))
        ]
        nodes[1] = self.unit(nodes[1], own, *part("base"))
        for place, branch in enumerate(fixed.branches(net, cell)):
            y = self.operate(nodes[branch.node], branch, *part(branch.name))
            nodes += [y] if branch.target == len(nodes) else []
            if place % 2:
                target = f"{name}/block_{branch.target - 1}"
                nodes[-1] = self.add("add", target, (nodes[-1], y))
        ends = []
        for node in fixed.loose_ends(net, cell):
            y = nodes[node]
            if cell.node_size(node) != cell.output_size:
                y = self.reduction(y, own, *part(f"loose_{node}"), strided=True)
            ends.append(y)
        return ends[0] if len(ends) == 1 else self.add("join", name, ends)

    def fit(self, x: int, source: Source, own: Precision, *part: Any) -> int:
        """Add what fits an input of a cell."""
        if source.fit == "keep":
            return x
        return (self.reduction if source.fit == "reduce" else self.unit)(x, own, *part)

    def unit(self, x: int, own: Precision, name: str, params: Tree, state: Tree) -> int:
        """Add an activation, a 1x1 convolution and its norm."""
        x = self.activate(name, x, own.activations)
        return self.conv(name, x, params, state, own.weights, own.activations)

    def reduction(
        self,
        x: int,
        own: Precision,
        name: str,
        params: Tree,
        state: Tree,
        *,
        strided: bool = False,
    ) -> int:
        """Add a factorised reduction; strided ones may read what is not activated."""
        if not strided or self.net.policy.quantize_inputs:
            x = self.activate(name, x, own.activations)
        pair = [self.kernel(params[key], own.weights) for key in ("path_1", "path_2")]
        arrays = {"kernel_1": pair[0], "kernel_2": pair[1]} | self.norm(params, state)
        shape = np.shape(pair[0])
        options = self.sums(own.weights, shape, own.activations)
        return self.add("halve", name, (x,), arrays, **options)

    def operate(
        self, x: int, branch: Branch, name: str, params: Tree, state: Tree
    ) -> int:
        """Add the operation of a branch."""
        own, stride = branch.precision, branch.stride
        if branch.op in KERNELS:
            for key, step in (("stack_0", stride), ("stack_1", 1)):
                part = f"{name}/{key}", params[key], state[key]
                x = self.separable(x, own, *part, stride=step, alone=key == "stack_0")
            return x
        if branch.op in (cells.AVG_POOL, cells.MAX_POOL):
            op = "average" if branch.op == cells.AVG_POOL else "largest"
            return self.add(op, name, (x,), stride=stride)
        if stride == 1:
            return x
        return self.reduction(x, own, name, params, state, strided=True)

    def separable(
        self,
        x: int,
        own: Precision,
        name: str,
        params: Tree,
        state: Tree,
        *,
        stride: int,
        alone: bool,
    ) -> int:
        """Add a depthwise and a pointwise stage.

        Values are codes where one activation alone reads a norm: between the stages,
        and, if `alone`, behind them.
        """
        exactly, inner = self.form == "exact", self.net.policy.inner_activation
        codes = list(kind_of(own.activations) or ()) if exactly else None
        if self.steps[x].op not in ("conv",) or "codes" not in self.steps[x].options:
            x = self.activate(name, x, own.activations)
        kernel = {"kernel": self.kernel(params["depthwise"], own.weights)[..., 0]}
        shape = params["depthwise"]["kernel"].shape
        options = self.sums(own.weights, shape, own.activations, deep=True)
        if inner:
            kernel |= self.norm(params["inner"], state["inner"])
        options |= {"stride": stride} | ({"codes": codes} if exactly else {})
        x = self.add("depthwise", f"{name}/depthwise", (x,), kernel, **options)
        if inner and not exactly:
            x = self.activate(name, x, own.activations)
        point = {"conv": params["pointwise"], "norm": params["norm"]}
        pair = own.weights, own.activations
        place = f"{name}/pointwise", x, point, state, *pair
        return self.conv(*place, codes=codes if alone else None)

    def conv(
        self,
        name: str,
        x: int,
        params: Tree,
        state: Tree,
        weights: Quantizer,
        read: Quantizer | int,
        *,
        codes: list | None = None,
    ) -> int:
        """Add a convolution of stride 1 and its norm."""
        kernel = self.kernel(params["conv"], weights)
        options = self.sums(weights, kernel.shape, read)
        options |= {"codes": codes} if codes else {}
        arrays = {"kernel": kernel} | self.norm(params, state)
        return self.add("conv", name, (x,), arrays, **options)

    def activate(self, name: str, x: int, quantizer: Quantizer) -> int:
        """Add an activation, once for all that read the same."""
        if (x, quantizer) not in self.codes:
            codes = self.activation(quantizer)
            step = self.add("activate", name, (x,), codes=codes)
            self.codes[x, quantizer] = step
        return self.codes[x, quantizer]

    def activation(self, quantizer: Quantizer) -> list:
        """Return kind and bits of what an activation gives."""
        exactly = kind_of(quantizer) if self.form == "exact" else None
        return list(exactly or activation_kind(quantizer))

    def head(self, x: int) -> None:
        """Add the head."""
        own, policy = self.params["head"]["dense"], self.net.policy
        kernel = self.kernel(own, policy.classifier)
        options = {"codes": self.activation(policy.head)}
        kind = kind_of(policy.classifier)
        if self.form == "exact" and kind:
            step = exact.coded(policy.classifier, kernel.shape).step
            options |= {"weights": list(kind), "step": step}
        arrays = {"kernel": kernel}
        self.add("head", "head", (x,), arrays, **options)

    def kernel(self, params: Tree, quantizer: Quantizer) -> np.ndarray:
        """Return codes of a kernel, or floats."""
        exactly = self.form == "exact" and kind_of(quantizer) is not None
        if quantizer not in self.coders:
            run = lambda given: (
                quantization.codes(quantizer, {}, given["kernel"])[0]
                if exactly
                else layers.effective_kernel(given, quantizer)
            )
            self.coders[quantizer] = jax.jit(run, compiler_options=groups.ONCE)
        found = self.coders[quantizer](params)
        return np.asarray(found, np.int8 if exactly else np.float32)

    def norm(self, params: Tree, state: Tree) -> dict[str, np.ndarray]:
        """Return mean, factor and offset of a norm."""
        own, seen = params["norm"], state["norm"]
        found = thresholds.affine(
            own["scale"],
            own["offset"],
            seen["mean"],
            seen["var"],
            self.net.behaviour.epsilon,
        )
        return found._asdict()

    def sums(
        self,
        weights: Quantizer,
        shape: Sequence[int],
        read: Quantizer | int,
        *,
        deep: bool = False,
    ) -> dict[str, Any]:
        """Return what is known of a convolution's operands and sums."""
        if self.form != "exact":
            return {}
        reads = ("signed", read) if isinstance(read, int) else kind_of(read)
        found = exact.sums_of(weights, shape, read, deep=deep)
        return {
            "weights": list(kind_of(weights) or ()),
            "reads": list(reads or ()),
            "window": shape[0],
            "alpha": found.alpha,
            "bound": found.bound,
        }
