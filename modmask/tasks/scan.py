"""SCAN: networks learn all commands, masks what a split of them trains on."""

import os

from modmask.config import Config
from modmask.models.encoder_decoder import encoder_decoder
from modmask.task import Problem, Stage
from modmask.tasks import sequences
from shared.data import scan
from shared.model import Model

TEACHER_RATE = 0.5


def load(config: Config, data_dir: str | os.PathLike | None = None) -> Problem:
    """Return the problem of the tasks `scan` and `trafo_scan`.

    The control mask is trained on the data of the weights, one more mask on each of
    `config.scan_analyze_splits`. "iid" is the test set of the split `simple`.

    Args:
        config: see `Config`.
        data_dir: see `shared.data.scan.split`; without it all data are generated, of
            the split `simple` a substitute.

    Raises:
        UsageError: for files that are missing or damaged.
    """
    chosen = (config.scan_train_split, *config.scan_analyze_splits)
    names = list(dict.fromkeys(("simple", *chosen)))
    splits = {name: scan.split(name, data_dir) for name in names}
    rows = scan.table()._asdict()
    tests = [name for name in dict.fromkeys(chosen) if name != "simple"]
    valid = {"iid": sequences.take(rows, splits["simple"].test)}
    valid |= {name: sequences.take(rows, splits[name].test) for name in tests}
    stages = [Stage(name, splits[name].train) for name in dict.fromkeys(chosen)]
    rate = 1.0 if config.task == "trafo_scan" else TEACHER_RATE
    return Problem(
        task=sequences.task(network(config), teacher_rate=rate),
        train=rows,
        weights=stages[0],
        stages=tuple(stages),
        valid=valid,
        info={
            "inputs": (*scan.WORDS, "EOS"),
            "outputs": (*scan.ACTIONS, "EOS"),
            "source": splits["simple"].source,
        },
    )


def network(config: Config) -> Model:
    """Return the network of a task, LSTM or transformer."""
    sizes = len(scan.WORDS), len(scan.ACTIONS)
    if config.task == "trafo_scan":
        return sequences.transformer_of(config, *sizes, max_out=scan.MOST_ACTIONS)
    return encoder_decoder(
        *sizes,
        hidden=config.state_size,
        layers=config.layers,
        embedding=config.embedding_size,
        dropout=config.dropout,
        max_out=scan.MOST_ACTIONS,
    )
