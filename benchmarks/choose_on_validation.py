"""Tries settings of a recipe and prints what the validation split says of each. The test split decides nothing here.

    python benchmarks/choose_on_validation.py RECIPE --set data.validation='{last: 5000}' --vary KEY=V1,V2 [--vary ...]

The teacher is trained once and kept in --directory; every combination of the varied values is a run of its own, of
which only ``training.json`` is read.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path

from distil.models.config import FileWeights
from distil.pipeline.run import run
from distil.recipe.load import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=V1,V2")
    parser.add_argument("--directory", type=Path, default=Path("runs/choose"))
    options = parser.parse_args()
    fixed = [*options.overrides, "export=[]"]
    weights = train_teacher(options.recipe, fixed, options.directory / "teacher")
    print(f"{'settings':<60} arm: mean validation accuracy (negative log-likelihood)")
    for settings in combinations(options.vary):
        recipe = load_recipe(options.recipe, [*fixed, *settings])
        assert recipe.teacher is not None
        teacher = recipe.teacher.model_copy(update={"training": None, "weights": weights, "labels": "students"})
        recipe = recipe.model_copy(update={"teacher": teacher})
        directory = options.directory / "-".join(settings).translate(str.maketrans("/ {}:,", "______"))
        run(recipe, directory)
        print(f"{' '.join(settings):<60} {'  '.join(arms(directory))}", flush=True)


def combinations(varied: list[str]) -> list[list[str]]:
    """Every combination of one value for each key."""
    pairs = (each.partition("=") for each in varied)
    choices = [[f"{key}={value}" for value in values.split(",")] for key, _, values in pairs]
    return [list(each) for each in itertools.product(*choices)]


def train_teacher(path: Path, overrides: list[str], directory: Path) -> FileWeights:
    """The weights of the recipe's teacher, trained once."""
    quick = ["seeds=1", "controls=[]", "training.epochs=1"]
    run(load_recipe(path, [*overrides, *quick]), directory)
    facts = json.loads((directory / "teachers/teacher/training.json").read_text())
    print(f"teacher: {facts['validation']}")
    return FileWeights(path=str(directory / "teachers/teacher/model.safetensors"))


def arms(directory: Path) -> list[str]:
    """For each arm, what the validation split says, averaged over seeds."""
    lines = []
    for arm in sorted((directory / "arms").iterdir()):
        facts = [json.loads(path.read_text())["validation"] for path in sorted(arm.glob("seed-*/training.json"))]
        accuracy, likelihood = (
            statistics.fmean(each[name] for each in facts) for name in ("accuracy", "negative_log_likelihood")
        )
        lines.append(f"{arm.name}: {accuracy:.4f} ({likelihood:.4f})")
    return lines


if __name__ == "__main__":
    main()
