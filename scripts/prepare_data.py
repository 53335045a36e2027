"""Fetch the official files of a data set, or prepare it through TFDS.

    python -m scripts.prepare_data mnist cifar10 --data-dir data

The names trees/mnist, trees/cifar-10, trees/cifar-5, trees/cifar-2 and trees/hybrid,
or trees for all five, turn files that are there into the archives of multipath.trees,
`DIR/trees/*.npz`. Nothing else in the library downloads anything.
"""

import argparse
import sys
from pathlib import Path

from multipath.trees import data as trees
from shared import cli
from shared.data import tfds
from shared.data.catalog import DOWNLOADS, SETS
from shared.data.fetch import FetchError, fetch
from shared.errors import UsageError, check_choice

ARCHIVES = tuple(f"trees/{name}" for name in trees.ARCHIVES)


class _Parser(argparse.ArgumentParser):
    """Tells a usage error in one line."""

    def error(self, message: str):
        raise UsageError("command line", message, "NAME [NAME ...] --data-dir DIR")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        options = _parser().parse_args(argv)
        for name in options.names:
            known = sorted({*SETS, *DOWNLOADS})
            check_choice("data set", name, [*known, "trees", *ARCHIVES])
        with cli.short_warnings():
            for name in options.names:
                _prepare(name, options)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the next call continues where this one ended", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m scripts.prepare_data",
        description=(__doc__ or "").splitlines()[0],
    )
    known = ", ".join([*sorted(DOWNLOADS), "trees", *ARCHIVES])
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"of {known}")
    parser.add_argument("--data-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--via",
        choices=("files", "tfds"),
        default="files",
        help="official files (default), or a copy prepared by tensorflow-datasets",
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="fetch from URL/mnist/..., laid out like DIR, not from the official site",
    )
    return parser


def _prepare(name: str, options: argparse.Namespace) -> None:
    if name == "trees" or name in ARCHIVES:
        if options.via == "tfds" or options.mirror:
            given = "--via" if options.via == "tfds" else "--mirror"
            raise UsageError(
                given, name, "a set to fetch; archives are made from files"
            )
        for archive in ARCHIVES if name == "trees" else (name,):
            path = options.data_dir / f"{archive}.npz"
            kind = trees.ARCHIVES[archive.removeprefix("trees/")]
            train, test = trees.write(kind, options.data_dir, path)
            counted = f"{train:,} training and {test:,} test images"
            print(f"{path}: written, {counted}", flush=True)
    elif name not in DOWNLOADS:
        print(f"{name}: ships with the package")
    elif options.via == "tfds":
        if name not in SETS:
            raise UsageError("--via", "tfds", f"files, for {name} is no image set")
        print(f"{name}: prepared in {tfds.prepare(name, options.data_dir)}")
    else:
        for file in DOWNLOADS[name]:
            new = fetch(file, options.data_dir, mirror=options.mirror)
            state = "fetched and verified" if new else "already there, verified"
            print(f"{options.data_dir / file.path}: {state}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
