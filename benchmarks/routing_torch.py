"""The routed example in PyTorch, sample by sample, as the published program has it.

A sample carries a mutable object with one dict for each decision that it met. Decisions
and selections take sample after sample, or, if `grouped`, agent after agent and module
after module; rewards and returns are Python numbers, and every loss sees the statistics
of a decision's samples put together again. `routing_replay` runs golden files through
it, so that nobody has to believe that it computes the same.

Needs PyTorch: pip install torch==2.13.0
"""

from collections import defaultdict

import torch
from torch import nn
from torch.nn import functional

from benchmarks.routing_rewards_torch import Collaboration
from benchmarks.routing_rules_torch import ALGORITHMS, Meta


class Selection(nn.Module):
    """Apply to each sample the module that its action names."""

    def __init__(self, inputs: int, outputs: int, count: int, grouped: bool = False):
        super().__init__()
        self.outputs, self.grouped = outputs, grouped
        self.candidates = nn.ModuleList(
            nn.Linear(inputs, outputs) for _ in range(count)
        )

    def forward(self, x, actions, mask=None):
        if self.grouped:
            return self.by_module(x, actions, mask)
        rows = []
        for i, sample in enumerate(x.split(1)):
            if mask is None or mask[i]:
                rows.append(self.candidates[actions[i]](sample))
            else:
                rows.append(x.new_zeros(1, self.outputs))
        return torch.cat(rows)

    def by_module(self, x, actions, mask):
        y = x.new_zeros(len(x), self.outputs)
        for module in actions.unique().tolist():
            rows = actions == module if mask is None else (actions == module) & mask
            y[rows] = self.candidates[module](x[rows])
        return y


class Loss:
    """Module loss and routing loss of each sample."""

    def __init__(self, module="mse", final="negloss", normalize=True):
        self.module, self.final, self.normalize = module, final, normalize

    def __call__(self, outputs, targets, metas):
        module = self.module_loss(outputs, targets)
        routing = [module.new_zeros(()) for _ in metas]
        groups = defaultdict(list)
        for b, meta in enumerate(metas):
            final = -module[b].item()
            if self.final == "cc":
                right = int(outputs[b].argmax()) == self.label(targets[b])
                final = 1.0 if right else -1.0
            if meta.steps:
                self.collect(groups, b, meta.finished(), final)
        for loss, rows in groups.items():
            samples, now, action, after, after_action, *rest, last = zip(
                *rows, strict=True
            )
            numbers = [torch.tensor(values, dtype=module.dtype) for values in rest]
            actions = [torch.stack(values) for values in (action, after_action)]
            losses = loss(
                torch.cat(now), actions[0], torch.cat(after), actions[1], *numbers,
                torch.tensor(last),
            )  # fmt: skip
            for b, value in zip(samples, losses, strict=True):
                routing[b] = routing[b] + value
        return module, torch.stack(routing)

    def module_loss(self, outputs, targets):
        if self.module == "ce":
            return functional.cross_entropy(outputs, targets, reduction="none")
        return functional.mse_loss(outputs, targets, reduction="none").sum(1)

    def label(self, target) -> int:
        return int(target.argmax()) if target.ndim else int(target)

    def collect(self, groups, b: int, steps: dict[str, list], final: float) -> None:
        """Add the steps of one sample to those of the decisions that made them."""
        actions, states = steps["actions"], steps["states"]
        depth = len(actions)
        rewards = [
            query.query(int(action)) / depth * (abs(final) if self.normalize else 1.0)
            for query, action in zip(steps["reward"], actions, strict=True)
        ]
        rewards[-1] = rewards[-1] + final
        returns = [sum(rewards[t:]) for t in range(depth)]
        for t in range(depth):
            last = t + 1 == depth or states[t + 1].shape != states[t].shape
            after = states[t] if last else states[t + 1]
            after_action = torch.zeros_like(actions[t]) if last else actions[t + 1]
            groups[steps["loss"][t]].append(
                (b, states[t], actions[t], after, after_action)
                + (rewards[t], returns[t], final, last)
            )


class Trunk(nn.Module):
    """Four blocks of convolution, rectifier and pooling, and batch normalisation."""

    def __init__(self, channels: int = 3):
        super().__init__()
        widths = (channels, 32, 32, 32, 32)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in pairs
        )
        self.norm = nn.BatchNorm2d(32)

    def forward(self, x):
        for convolution in self.convolutions:
            x = functional.max_pool2d(torch.relu(convolution(x)), 2)
        return self.norm(x).flatten(1)


class Routed(nn.Module):
    """Decisions and selections in turn: the layers behind a trunk.

    Args:
        algorithm: a name of `ALGORITHMS`.
        widths: features before and after each layer.
        actions: modules of each layer.
        agents: agents of each decision.
        rectify: whether a rectifier is between layers.
        options: of the decisions.
    """

    def __init__(self, algorithm, widths, actions, agents, rectify=True, options=None):
        super().__init__()
        layers = list(zip(widths[:-1], widths[1:], actions, strict=True))
        self.rectify = rectify
        self.decisions = nn.ModuleList(
            ALGORITHMS[algorithm](a, k, agents, **(options or {})) for a, _, k in layers
        )
        grouped = (options or {}).get("grouped", False)
        self.selections = nn.ModuleList(
            Selection(a, b, k, grouped) for a, b, k in layers
        )

    def forward(self, x, agents, given=(), masks=()):
        """Return outputs, metas and the actions of each layer."""
        metas, chosen, mask = [Meta() for _ in x], [], None
        pairs = zip(self.decisions, self.selections, strict=True)
        for t, (decide, select) in enumerate(pairs):
            mask = masks[t] if masks else None
            x, actions = decide(x, metas, agents, mask, given[t] if given else None)
            x = select(x, actions, mask)
            if self.rectify and t + 1 < len(self.decisions):
                x = torch.relu(x)
            chosen.append(actions)
        return x, metas, torch.stack(chosen, 1)


TASKS, WIDTHS = 20, (128, 48, 48, 5)
RATES, CLIP = (3e-3, 9e-4), 40.0


class Example(nn.Module):
    """A trunk and three decisions, each before one of twenty modules for each task.

    Args:
        algorithm: a name of `ALGORITHMS`.
        grouped: whether decisions take agents and selections modules in turn.
    """

    def __init__(self, algorithm: str, grouped: bool = False):
        super().__init__()
        self.trunk, self.loss = Trunk(), Loss()
        options = {"reward": Collaboration, "grouped": grouped}
        self.routed = Routed(algorithm, WIDTHS, (TASKS,) * 3, TASKS, options=options)
        self.modules_only = [
            *self.trunk.parameters(),
            *self.routed.selections.parameters(),
        ]
        groups = (self.modules_only, self.routed.decisions.parameters())
        self.optimizers = [
            torch.optim.SGD(own, lr=rate)
            for own, rate in zip(groups, RATES, strict=True)
        ]

    def losses(self, features, tasks, targets) -> float:
        """Run the routed part and leave gradients."""
        outputs, metas, _ = self.routed(features, tasks)
        module, routing = self.loss(outputs, targets, metas)
        total = module.mean() + routing.mean()
        total.backward()
        return total.item()

    def step(self, images, tasks, targets) -> float:
        """Take one step of both optimisers."""
        self.zero_grad()
        total = self.losses(self.trunk(images), tasks, targets)
        nn.utils.clip_grad_norm_(self.modules_only, CLIP)
        for optimizer in self.optimizers:
            optimizer.step()
        return total
