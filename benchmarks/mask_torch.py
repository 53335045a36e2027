"""Claim: our mask step is no slower than a plain PyTorch one on a CPU, or much faster.

The mask step of Csordás et al. (2021) written down in PyTorch in its plainest form: two
uniform draws for each sample of each logit, batched products, Adam. Both programs take
the same networks and batches, N = 4, two threads; steps are timed in turn and the least
time of each is kept. Limits on our time over PyTorch's: 1/5 for the feed-forward
network of 2000 units, 1 for that of 800 and for the LSTM, 2.2 for the small CNN, whose
four groups are one grouped convolution there. Exit status 1 if one is exceeded.

Needs PyTorch: pip install torch==2.13.0

    python -m benchmarks.mask_torch [--repeats 10] [--only NAME ...]
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.mask_step import BATCH, least, make_case, mask_step

LIMITS = {"ff 800x4": 1.0, "ff 2000x4": 0.2, "lstm 2x256": 1.0, "cnn": 2.2}
SAMPLES, EPSILON, PUSH = 4, 1e-10, 1e-4 / BATCH


def masked(weight: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return N masked copies `[N, *shape]`, with straight-through gradients."""
    first, second = torch.rand((2, SAMPLES, *logits.shape))
    noise = -torch.log(
        torch.log(second + EPSILON) / torch.log(first + EPSILON) + EPSILON
    )
    soft = torch.sigmoid(logits + noise)
    hard = (soft > 0.5).float()
    return weight * ((hard - soft).detach() + soft)


def linear(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Map `[N, rows, in]` by kernels `[N, in, out]`."""
    return torch.baddbmm(bias[:, None], x, kernel)


def feedforward(w: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = x.reshape(SAMPLES, -1, x.shape[-1])
    for i in range(0, len(w) - 2, 2):
        x = torch.relu(linear(x, w[i], w[i + 1]))
    return linear(x, w[-2], w[-1]).flatten(0, 1)


def lstm(w: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Run `[B, T, in]` through layers (kernel, recurrent, bias), read the last step."""
    x = x.reshape(SAMPLES, -1, *x.shape[1:])
    for i in range(0, len(w) - 2, 3):
        kernel, recurrent, bias = w[i : i + 3]
        h = c = x.new_zeros(*x.shape[:2], recurrent.shape[1])
        outputs = []
        for t in range(x.shape[2]):
            gates = linear(x[:, :, t], kernel, bias) + torch.bmm(h, recurrent)
            i_, f, g, o = gates.chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i_) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        x = torch.stack(outputs, 2)
    return linear(x[:, :, -1], w[-2], w[-1]).flatten(0, 1)


def convnet(w: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Run `[B, C, H, W]` through grouped convolutions, one group for each mask."""
    x = torch.cat(x.chunk(SAMPLES), 1)
    for i, pool in zip(range(0, 8, 2), (True, True, True, False), strict=True):
        x = functional.conv2d(
            x, w[i].flatten(0, 1), w[i + 1].flatten(), padding=1, groups=SAMPLES
        )
        x = torch.relu(x)
        x = functional.max_pool2d(x, 2) if pool else x
    x = x.mean((2, 3)).reshape(len(x), SAMPLES, -1).transpose(0, 1)
    return linear(x, w[-2], w[-1]).flatten(0, 1)


def network(name: str) -> tuple[Callable, list[tuple[int, ...]], torch.Tensor, tuple]:
    """Return function, shapes of weights, a batch, and the shape of the labels.

    Inputs are one-hot as those of our networks are, so that products cost the same.
    """
    if name == "cnn":
        widths = (3, 32, 64, 128, 256)
        shapes = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            shapes += [(b, a, 3, 3), (b,)]
        return convnet, [*shapes, (256, 10), (10,)], torch.randn(BATCH, 3, 32, 32), ()
    if name.startswith("lstm"):
        shapes = [(80, 1024), (256, 1024), (1024,), (256, 1024), (256, 1024), (1024,)]
        x = functional.one_hot(torch.randint(10, (BATCH, 6, 8)), 10).flatten(2)
        return lstm, [*shapes, (256, 40), (40,)], x.float(), (4,)
    width = int(name.removeprefix("ff ").removesuffix("x4"))
    widths = (42, *(width,) * 4, 20)
    pairs = zip(widths[:-1], widths[1:], strict=True)
    shapes = [shape for a, b in pairs for shape in ((a, b), (b,))]
    x = functional.one_hot(torch.randint(10, (BATCH, 4)), 10).flatten(1)
    which = functional.one_hot(torch.randint(2, (BATCH,)), 2)
    return feedforward, shapes, torch.cat([x, which], 1).float(), (2,)


def torch_step(name: str) -> Callable[[], Any]:
    """Return what takes one step of the mask in PyTorch."""
    apply, shapes, x, slots = network(name)
    weights = [torch.randn(shape) / max(shape[0], 1) ** 0.5 for shape in shapes]
    logits = [torch.full(shape, 2.0, requires_grad=True) for shape in shapes]
    labels = torch.randint(10, (BATCH, *slots)).flatten()
    optimizer = torch.optim.Adam(logits, lr=1e-2)

    def step() -> float:
        optimizer.zero_grad()
        drawn = [masked(w, own) for w, own in zip(weights, logits, strict=True)]
        outputs = apply(drawn, x).reshape(-1, 10)
        loss = functional.cross_entropy(outputs, labels)
        loss.backward()
        for own in logits:
            assert own.grad is not None
            own.grad += PUSH
        torch.nn.utils.clip_grad_norm_(logits, 1.0)
        optimizer.step()
        return loss.item()

    return step


def main() -> int:
    """Print the table; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description="Time our mask step against PyTorch.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=list(LIMITS))
    options = parser.parse_args()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    failed = False
    for name in options.only or LIMITS:
        runs = {"ours": mask_step(make_case(name)), "torch": torch_step(name)}
        seconds = least(runs, options.repeats)
        ratio, limit = seconds["ours"] / seconds["torch"], LIMITS[name]
        failed |= ratio > limit
        print(
            f"{name:10} ours {1e3 * seconds['ours']:8.1f} ms   "
            f"torch {1e3 * seconds['torch']:8.1f} ms   {ratio:5.2f}x, "
            f"{'NOT within' if ratio > limit else 'within'} {limit}x"
        )
    return int(failed)


if __name__ == "__main__":
    torch.manual_seed(0)
    raise SystemExit(main())
