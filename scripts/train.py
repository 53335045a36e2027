"""Train an experiment by name: python -m scripts.train SYSTEM EXPERIMENT [options].

python -m scripts.train --list
python -m scripts.train gaitprop digits-h4-gait --seeds 3
python -m scripts.train gaitprop sq4-gait --data-dir data --epochs 10
python -m scripts.train --resume runs/gaitprop/sq4-gait/20260101-120000-abcdef
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from scripts import report, systems
from shared import cli, config, parallel, runs
from shared.errors import UsageError, check_choice


def main(argv: Sequence[str]) -> None:
    """Parse, train, report."""
    request = cli.parse(argv, systems.EXPERIMENTS, prog="python -m scripts.train")
    path = run(request)
    print(f"figures: python -m scripts.plot {path}")


def run(request: cli.Request) -> Path:
    """Train what is asked for, print the table, return the run directory."""
    options = request.options
    # Before anything uses a device.
    if options.devices is not None:
        parallel.set_cpu_devices(options.devices)
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    train = systems.load(request.system, "train")
    check_choice("--dtype", options.dtype, train.DTYPES)
    work = train.train
    if request.experiment.kind == "analysis":
        analyses = systems.load(request.system, "analysis").ANALYSES
        work = analyses[request.experiment.name]
    configs = members(request.experiment.configs, options.seeds)
    with open_run(request, configs) as opened:
        if not is_done(opened.path):
            carry_out(work, configs, options, opened)
    print(report.table([opened.path]))
    print(f"run: {opened.path}")
    return opened.path


def members(configs: Sequence[Any], seeds: int) -> list[Any]:
    """Return each config once per seed, with consecutive seeds from its own on."""
    return [
        dataclasses.replace(config, seed=config.seed + i)
        for config in configs
        for i in range(seeds)
    ]


def open_run(request: cli.Request, configs: Sequence[Any]) -> runs.Run:
    """Open the run to resume, or create a new one."""
    options = request.options
    if options.resume is not None:
        return runs.open(options.resume)
    written = [config.to_dict(c) for c in configs]
    return runs.create(
        options.out,
        request.system,
        request.experiment.name,
        config.to_dict(request.experiment.configs[0]),
        dataclasses.asdict(options),
        members=written if len(written) > 1 else None,
    )


def is_done(path: Path) -> bool:
    """Tell whether a run has nothing left to do."""
    summary = runs.read_summary(path)
    return summary is not None and summary.get("status") == "done"


def carry_out(
    work: Callable[..., Sequence[dict[str, Any]]],
    configs: Sequence[Any],
    options: cli.RunOptions,
    run: runs.Run,
) -> None:
    """Train or analyse, and write the summaries, of a single failure too."""
    devices = options.devices or 1
    try:
        summaries = work(configs, data_dir=options.data_dir, devices=devices, run=run)
    except UsageError:
        if options.resume is None:
            run.discard()
        raise
    except FloatingPointError as error:
        if len(configs) == 1:
            run.finish({"status": f"failed: {str(error).partition(';')[0]}"})
        raise
    finish(run, summaries)


def finish(run: runs.Run, summaries: Sequence[dict[str, Any]]) -> None:
    """Write the summaries of a run and, where it has them, of its members."""
    if len(summaries) == 1:
        return run.finish(summaries[0])
    failed = [i for i, s in enumerate(summaries) if s["status"] != "done"]
    whole = {
        "status": f"failed: members {failed}" if failed else "done",
        "members": len(summaries),
    }
    run.finish(whole, summaries)


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
