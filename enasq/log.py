"""The log of a run as text, in the lines of the published program.

Lines are made from records alone, so that a resumed run writes the whole log again.
Where the published program prints one batch, records hold the mean since the last line.

Reference: Pham et al. (2018), the authors' program.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from shared.training import Record

RULE = "-" * 80


def render(records: Sequence[Record], *, batch_size: int, counts: Any) -> str:
    """Return the log of a member.

    Args:
        records: all of them, in order.
        batch_size: images of an update.
        counts: images of each split.
    """
    lines: list[str] = []
    for record in records:
        if "batch/loss" in record:
            lines.append(child_line(record, batch_size))
        if "controller/loss" in record and record["step"]:
            lines += phase_lines(record)
        if "arcs" in record and record["step"]:
            lines += candidate_lines(record)
        lines += evaluation_lines(record, counts)
    return "\n".join([*lines, ""])


def child_line(record: Record, batch_size: int) -> str:
    """Return the line of an update of the weights."""
    right = round(record["batch/accuracy"] * batch_size)
    return (
        f"epoch = {int(record['epoch']):<6d}"
        f"ch_step = {record['step']:<6d}"
        f" loss = {record['batch/loss']:<8.6f}"
        f"   lr = {record['batch/rate']:<8.4f}"
        f" |g| = {record['batch/gradient_norm']:<8.4f}"
        f" tr_acc = {right:<3d}/{batch_size:>3d}"
        f"   mins = {record.get('seconds', 0) / 60:<10.2f}"
    )


def phase_lines(record: Record) -> Iterator[str]:
    """Yield the lines of a phase of the controller, one for each update."""
    epoch = round(record["epoch"])
    yield f"Epoch {epoch}: Training controller"
    count = len(record["controller/loss"])
    names = ("loss", "entropy", "grad_norm", "accuracy", "baseline")
    columns = [record[f"controller/{name}"] for name in names]
    for place, values in enumerate(zip(*columns, strict=True)):
        loss, entropy, norm, accuracy, baseline = values
        step = (epoch - 1) * count + place + 1
        yield (
            f"ctrl_step = {step:<6d}"
            f" loss = {loss:<7.3f}"
            f" ent = {entropy:<5.2f}"
            f"   lr = {record['controller_rate']:<6.4f}"
            f"   |g| = {norm:<8.4f}"
            f" acc = {accuracy:<6.4f}"
            f"   bl = {baseline:<5.2f}"
            f"  mins = {record.get('seconds', 0) / 60:<.2f}"
        )


def candidate_lines(record: Record) -> Iterator[str]:
    """Yield the drawn architectures, each with its accuracy."""
    arcs = np.asarray(record["arcs"], int)
    yield f"Here are {len(arcs)} architectures"
    for arc, accuracy in zip(arcs, record["valid/accuracies"], strict=True):
        for code in arc:
            yield str(code.reshape(-1)).replace("\n", "")
        yield f"val_acc = {accuracy:<6.4f}"
        yield RULE


def evaluation_lines(record: Record, counts: Any) -> Iterator[str]:
    """Yield the accuracies of an evaluation."""
    names = [n for n in ("valid", "test") if f"{n}/accuracy" in record]
    if not names:
        return
    yield f"Epoch {round(record['epoch'])}: Eval"
    yield f"Eval at {record['step']}"
    for name in names:
        yield f"{name.capitalize()} Num examples: {getattr(counts, name)}"
        yield f"{name}_accuracy: {record[f'{name}/accuracy']:<6.4f}"
