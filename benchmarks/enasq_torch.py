"""The shared-weight network of the published searches in plain PyTorch.

Channels last, one bank of weights for each place, automatic gradients, and gradients
straight through quantisers by `detach`: what one would write first.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from enasq import cell
from enasq.plan import Cell, Network, plan

SEPARABLE = {0: 3, 1: 5}
RATE = 0.05


def quantize(x: Any, first: bool) -> Any:
    """Return 4 bits for the first cell, ternary numbers for others."""
    if first:
        x = x + (torch.round(x * 8) / 8 - x).detach()
        return torch.clamp(x, -1, 0.875)
    q = (x > 0.5).to(x.dtype) - (x <= -0.5).to(x.dtype)
    return x + (q - x).detach()


def activate(x: Any, first: bool) -> Any:
    """Quantise activations."""
    return quantize(x if first else torch.clamp(x, -1, 1), first)


def normalize(x: Any, pair: tuple[Any, Any]) -> Any:
    """Normalise by the batch."""
    return F.batch_norm(x, None, None, *pair, training=True, eps=1.001e-5)


def halve(own: dict[str, Any], x: Any, first: bool) -> Any:
    """Return a factorised reduction."""
    parts = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
    pairs = zip(parts, own["w"], strict=True)
    y = [F.conv2d(part, quantize(w, first)) for part, w in pairs]
    return normalize(torch.cat(y, 1), own["norm"])


def unit(own: dict[str, Any], x: Any, first: bool) -> Any:
    """Return a normalised 1x1 convolution."""
    return normalize(F.conv2d(x, quantize(own["w"], first)), own["norm"])


def branch(own: dict[int, Any], x: Any, node: int, op: int, first: bool) -> Any:
    """Return one operation, with the weights for its input."""
    if op == 2:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    if op == 3:
        return F.max_pool2d(x, 3, 1, 1)
    if op == 4:
        return x
    for deep, point, (scale, offset) in own[op]:
        w = quantize(deep[node], first)
        y = activate(x, first)
        y = F.conv2d(y, w, padding=w.shape[-1] // 2, groups=len(w))
        y = F.conv2d(y, quantize(point[node], first))
        x = normalize(y, (scale[node], offset[node]))
    return x


class Supernet:
    """A network with its optimiser; calls take one step each."""

    def __init__(self, network: Network, images: np.ndarray, labels: np.ndarray):
        self.weights: list[Any] = []
        self.plan = plan(network)
        self.stem = self._leaf(self.plan.stem, network.channels, 3, 3)
        self.stem_norm = self._norm(self.plan.stem)
        self.cells = [self._cell(one, network.blocks) for one in self.plan.cells]
        self.last = self._leaf(network.classes, self.plan.cells[-1].channels)
        self.rule = torch.optim.Adam(
            self.weights, lr=RATE, betas=(0.0, 0.999), eps=1e-3
        )
        # A view whose memory has channels last.
        self.images = torch.tensor(images).permute(0, 3, 1, 2)
        hot = F.one_hot(torch.tensor(labels).long(), network.classes).bool()
        self.signs = torch.where(hot, 1.0, -3.0)

    def _leaf(self, *shape: int, fill: float | None = None) -> Any:
        value = torch.rand(shape) * 2 - 1 if fill is None else torch.full(shape, fill)
        self.weights.append(value.requires_grad_())
        return value

    def _norm(self, *shape: int) -> tuple[Any, Any]:
        return self._leaf(*shape, fill=1.0), self._leaf(*shape, fill=0.0)

    def _halving(self, inputs: int, outputs: int) -> dict[str, Any]:
        half = outputs // 2, inputs, 1, 1
        pair = self._leaf(*half), self._leaf(*half)
        return {"w": pair, "norm": self._norm(outputs)}

    def _unit(self, inputs: int, outputs: int) -> dict[str, Any]:
        return {"w": self._leaf(outputs, inputs, 1, 1), "norm": self._norm(outputs)}

    def _separable(self, rows: int, f: int, window: int) -> tuple[Any, ...]:
        deep = self._leaf(rows, f, 1, window, window)
        return deep, self._leaf(rows, f, f, 1, 1), self._norm(rows, f)

    def _branch(self, rows: int, f: int) -> dict[int, Any]:
        return {
            op: [self._separable(rows, f, window) for _ in range(2)]
            for op, window in SEPARABLE.items()
        }

    def _cell(self, one: Cell, blocks: int) -> dict[str, Any]:
        f = one.filters
        own: dict[str, Any] = {}
        if one.entry is not None:
            own["entry"] = self._halving(one.entry[0], f)
        own["inputs"] = [
            None
            if source.fit == "keep"
            else (self._halving if source.fit == "reduce" else self._unit)(
                source.channels, f
            )
            for source in one.sources
        ]
        own["blocks"] = [
            [self._branch(block + 2, f) for _ in "xy"] for block in range(blocks)
        ]
        own["output"] = self._leaf(blocks + 2, f, f, 1, 1), self._norm(f)
        return own

    def _run_cell(self, one: Cell, own: dict, arc: np.ndarray, before: Any, now: Any):
        first, code = one.number == 0, arc[int(one.reduction)]
        if one.entry is not None:
            before, now = now, halve(own["entry"], now, first)
        nodes = []
        for x, weights, source in zip(
            (before, now), own["inputs"], one.sources, strict=True
        ):
            if weights is not None:
                run = halve if source.fit == "reduce" else unit
                x = run(weights, activate(x, first), first)
            nodes.append(x)
        for row, pair in zip(code.tolist(), own["blocks"], strict=True):
            places = zip(pair, row[::2], row[1::2], strict=True)
            parts = [branch(b, nodes[i], i, op, first) for b, i, op in places]
            nodes.append(parts[0] + parts[1])
        loose = np.nonzero(cell.loose_ends(code))[0].tolist()
        bank, norm = own["output"]
        kernel = torch.cat([bank[node] for node in loose], 1)
        x = torch.cat([activate(nodes[node], first) for node in loose], 1)
        return now, normalize(F.conv2d(x, quantize(kernel, first)), norm)

    def forward(self, arc: np.ndarray) -> Any:
        """Return the logits of an architecture `[2, blocks, 4]`."""
        x = F.conv2d(self.images, quantize(self.stem, True), padding=1)
        before = now = normalize(x, self.stem_norm)
        for one, own in zip(self.plan.cells, self.cells, strict=True):
            before, now = self._run_cell(one, own, arc, before, now)
        return activate(now, False).mean((2, 3)) @ self.last.T

    def __call__(self, arc: np.ndarray) -> None:
        self.rule.zero_grad()
        torch.relu(1 - self.signs * self.forward(arc)).mean().backward()
        self.rule.step()
