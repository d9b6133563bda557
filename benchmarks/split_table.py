"""Runs a recipe once for each of several splits of its data and prints the verdicts as a Markdown table.

python benchmarks/split_table.py RECIPE [--splits 1,2,3,4,5] [--set KEY=VALUE] [--directory runs/splits]
"""

import argparse
from pathlib import Path
from typing import Any

from distil.pipeline.run import run
from distil.recipe.load import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--splits", default="1,2,3,4,5")
    parser.add_argument("--set", dest="overrides", action="append", default=["export=[]"], metavar="KEY=VALUE")
    parser.add_argument("--directory", type=Path, default=Path("runs/splits"))
    options = parser.parse_args()
    header = ""
    for split in options.splits.split(","):
        recipe = load_recipe(options.recipe, [*options.overrides, f"data.split_seed={split}"])
        verdict = run(recipe, options.directory / f"{recipe.name}-{split}").verdict
        if not header:
            header = " | ".join(
                ["split", "teacher", *verdict["arms"], "best control", "difference", "interval", "verdict"]
            )
            print(f"| {header} |\n|{'---|' * (header.count('|') + 1)}")
        print(f"| {' | '.join(cells(split, verdict))} |", flush=True)


def cells(split: str, verdict: dict[str, Any]) -> list[str]:
    """One row: the accuracy of every model, then the verdict."""
    low, high = verdict["interval"]
    quality = [*verdict["teachers"].values(), *(arm["mean"] for arm in verdict["arms"].values())]
    return [
        split,
        *(f"{value:.4f}" for value in quality),
        verdict["best_control"],
        f"{verdict['difference']:+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        verdict["verdict"],
    ]


if __name__ == "__main__":
    main()
