"""Compare reference files with our code: `python -m tests.parity DIR`."""

import argparse
import sys
from pathlib import Path

from tests.parity import runner


def table_line(rows: list[runner.Row]) -> str:
    """Return one line on a file: its largest errors and the array nearest its limit."""
    worst = max(rows, key=lambda row: row.share)
    failed = sum(not row.passed for row in rows)
    state = f"{failed} FAILED" if failed else "ok"
    share = "equal" if worst.share == 0 else f"{worst.share:8.1e}"
    return (
        f"{worst.file:28} {worst.dtype:8} {len(rows):4d} arrays  "
        f"largest error {worst.error:8.1e} relative {worst.absolute:8.1e} absolute, "
        f"{share:>8} of its limit ({worst.name})  {state}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and return the exit status: 1 unless everything agrees."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("directory", type=Path, help="directory of .npz files")
    parser.add_argument("--system", help="default: the directory's name")
    options = parser.parse_args(arguments)
    system = options.system or options.directory.resolve().name
    try:
        runner.system_cases(system)
    except ModuleNotFoundError as error:
        if error.name != f"tests.parity.{system}":
            raise
        print(f"--system: got {system!r}, for which there are no cases")
        return 2

    def report(rows):
        if rows:
            print(table_line(rows), flush=True)

    rows, problems = runner.check_directory(options.directory, system, report=report)
    failed = [row for row in rows if not row.passed]
    for row in failed:
        print(
            f"FAILED {row.file} {row.dtype} {row.name}: relative {row.error:.2e} "
            f"(limit {row.tolerance.relative:.1e}), absolute {row.absolute:.2e} "
            f"(limit {row.tolerance.absolute:.1e})"
        )
    for problem in problems:
        print(f"ERROR {problem.file}: {problem.message}")
    print(f"{len(rows)} arrays, {len(failed)} failed, {len(problems)} errors")
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
