"""Claim: the PyTorch loop of `routing_torch` computes what the published program does.

Golden files hold parameters, actions, noise, losses and gradients of small networks and
of the routed example, from the published program. Each is run through the loop, sample
by sample and grouped. Prints the largest relative error of each; exit status 1 if one
is above 1e-7, or 1e-4 in single precision.

Needs PyTorch: pip install torch==2.13.0

    python -m benchmarks.routing_replay [--folder tests/golden/routing]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import routing_rewards_torch as rewards
from benchmarks import routing_torch as loop

PATTERNS = ("net_*.npz", "net[0-9]*_*.npz", "model_routed_*_wpl_*.npz")
NAMES = {"WPL": "wpl"}
REWARDS = {
    "base": rewards.Zero,
    "manual": rewards.Manual,
    "collab": rewards.Collaboration,
    "running": rewards.RunningAverage,
}
Arrays = dict[str, np.ndarray]


class Model(nn.Module):
    """A trunk, if the file has one, before the routed layers."""

    def __init__(self, arrays: Arrays, meta: dict[str, Any], grouped: bool):
        super().__init__()
        kernels = [a for _, a in named(arrays, "params/selection") if a.ndim == 3]
        image = arrays["x"].ndim == 4
        self.trunk = loop.Trunk(arrays["x"].shape[1]) if image else nn.Identity()
        self.routed = loop.Routed(
            NAMES.get(meta["algo"], meta["algo"]),
            (kernels[0].shape[1], *(k.shape[2] for k in kernels)),
            [len(k) for k in kernels],
            meta["agents"],
            rectify=image,
            options={
                "hidden": tuple(meta.get("hidden", ())),
                "tabular": meta.get("storage", "tabular") == "tabular",
                "detach": meta.get("detach", True),
                "reward": REWARDS[meta.get("per_action", "collab")],
                "grouped": grouped,
            },
        )

    def places(self, name: str) -> list[nn.Parameter]:
        """Return the parameters that an array of a golden file stacks."""
        part, *path = name.split("/")
        t, leaf = int(part[-1]), {"kernel": "weight"}.get(path[-1], path[-1])
        owners: Any
        if part.startswith("conv"):
            owners = [self.get_submodule(f"trunk.convolutions.{t}")]
        elif part.startswith("selection"):
            owners = self.get_submodule(f"routed.selections.{t}.candidates").children()
        else:
            owners = self.get_submodule(f"routed.decisions.{t}.{path[0]}").children()
        if "/layer" in name:
            layer = 2 * int(path[1].removeprefix("layer"))
            owners = [owner[layer] for owner in owners]
        return [getattr(owner, leaf) for owner in owners]

    def load(self, arrays: Arrays) -> None:
        """Take the parameters of a file."""
        for name, value in named(arrays, "params/"):
            name = name.removeprefix("params/")
            stacked = [value] if name.startswith("conv") else value
            for slot, own in zip(self.places(name), stacked, strict=True):
                slot.data = to_torch(own)

    def gradient_errors(self, arrays: Arrays, kind: str) -> list[float]:
        """Return errors of the gradients that the parameters hold now."""
        errors = []
        for name, expected in named(arrays, kind + "/"):
            name = name.removeprefix(kind + "/")
            if name == "conv_bias":
                slots = [self.places(f"conv{i}/bias")[0] for i in range(len(expected))]
            else:
                slots = self.places(name)
            found = [torch.zeros_like(s) if s.grad is None else s.grad for s in slots]
            errors.append(error(np.stack([as_numpy(g) for g in found]), expected))
        return errors


def named(arrays: Arrays, prefix: str) -> list[tuple[str, np.ndarray]]:
    return sorted((n, a) for n, a in arrays.items() if n.startswith(prefix))


def to_torch(value: np.ndarray) -> torch.Tensor:
    """Return a kernel with outputs before inputs."""
    order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(value.ndim, range(value.ndim))
    return torch.tensor(value.transpose(*order))


def as_numpy(value: torch.Tensor) -> np.ndarray:
    """Return a kernel with inputs before outputs."""
    order = {2: (1, 0), 4: (2, 3, 1, 0)}.get(value.ndim, range(value.ndim))
    return value.detach().numpy().transpose(*order)


def error(found: Any, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest entry."""
    if isinstance(found, torch.Tensor):
        found = found.detach().numpy()
    largest = float(np.abs(expected).max()) or 1.0
    return float(np.abs(found - expected).max()) / largest


def replay(path: Path, grouped: bool = False) -> dict[str, float]:
    """Return relative errors of outputs, actions, losses and gradients of a file."""
    with np.load(path) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    image, training = arrays["x"].ndim == 4, meta.get("training", True)
    model = Model(arrays, meta, grouped).train(training)
    model.load(arrays)
    x = torch.tensor(arrays["x"], dtype=torch.float32 if image else torch.float64)
    agents = torch.tensor(arrays["tasks" if image else "agent"])
    given, masks = replayed(arrays) if training else ((), ())
    outputs, metas, actions = model.routed(model.trunk(x), agents, given, masks)
    if image:
        targets = torch.eye(outputs.shape[1])[torch.tensor(arrays["labels"])]
    else:
        targets = torch.tensor(arrays["y"])
    loss = loop.Loss(
        meta["loss"].split()[0],
        meta.get("final", "negloss"),
        meta.get("normalize_per_action_rewards", True),
    )
    module, routing = loss(outputs, targets, metas)
    errors = {
        "outputs": error(outputs, arrays["out_train" if image else "out"]),
        "actions": error(actions, arrays["actions"]),
        "module loss": error(module, arrays["module_loss"]),
        "routing loss": error(routing, arrays["routing_loss"]),
        "written gradients": max(model.gradient_errors(arrays, "grad_inplace") or [0]),
    }
    totals = {"grad_routing": routing.mean(), "grad_total": (module + routing).mean()}
    for kind, total in totals.items():
        model.zero_grad()
        if total.requires_grad:
            total.backward(retain_graph=True)
        errors[kind] = max(model.gradient_errors(arrays, kind) or [0])
    return errors


def replayed(arrays: Arrays) -> tuple[list[dict[str, torch.Tensor]], list]:
    """Return actions or noise, and masks, of each layer."""
    given, masks, mask = [], [], None
    for t in range(arrays["actions"].shape[1]):
        noise = {n: arrays[f"step{t}/{n}"] for n in "uv" if f"step{t}/{n}" in arrays}
        found = noise or {"actions": arrays["actions"][:, t]}
        given.append({name: torch.tensor(value) for name, value in found.items()})
        if f"step{t}/mask" in arrays:
            mask = torch.tensor(arrays[f"step{t}/mask"]).bool()
        masks.append(mask)
    return given, masks


def check(folder: Path) -> dict[str, float]:
    """Return the largest error of each golden file that the loop can run."""
    paths = sorted(path for pattern in PATTERNS for path in folder.glob(pattern))
    return {
        path.stem: max(max(replay(path, g).values()) for g in (False, True))
        for path in paths
    }


def main() -> int:
    """Print the table; return 1 if an error is too large."""
    parser = argparse.ArgumentParser(description="Check the loop on golden files.")
    golden = Path(__file__).parents[1] / "tests" / "golden" / "routing"
    parser.add_argument("--folder", type=Path, default=golden)
    errors = check(parser.parse_args().folder)
    for name, value in errors.items():
        print(f"{name:40s} {value:.1e}")
    if not errors:
        print("no golden files found")
    wrong = [n for n, e in errors.items() if e > (1e-4 if "model" in n else 1e-7)]
    print("too large: " + ", ".join(wrong) if wrong else f"{len(errors)} files agree")
    return int(bool(wrong) or not errors)


if __name__ == "__main__":
    raise SystemExit(main())
