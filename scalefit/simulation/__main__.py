"""Write a simulated sweep from the shell."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from scalefit.simulation.bundle import write_bundle


def _main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scalefit.simulation", description="Write a simulated sweep.")
    parser.add_argument("folder", help="where runs.csv and truth.json go")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for path in write_bundle(options.folder, options.seed):
        print(path)


if __name__ == "__main__":
    _main()
