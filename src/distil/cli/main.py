"""The command line. Each command imports what it needs when it runs, so that help is instant."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from distil.core.errors import DistilError, Preempted

app = typer.Typer(
    name="distil",
    help="Knowledge distillation with proof: teacher in, small student out, a verdict with intervals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Changes a key of the recipe; may be given again.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Prints the result as JSON on standard output.")]


@app.command()
def new(
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder with train/CLASS/*.png and so on.")
    ] = None,
) -> None:
    """Prints a starter recipe."""
    from distil.recipe.starter import starter_recipe

    print(starter_recipe(images), end="")


@app.command()
def run(
    recipe: RecipePath,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep the run; runs/NAME otherwise.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads it, nobody changes it
    as_json: AsJson = False,
) -> None:
    """Does everything the recipe says: teacher, controls, student, verdict, export, report. Again: goes on."""
    from distil.cli.progress import watching
    from distil.cli.summary import print_summary
    from distil.recipe.load import load_recipe
    from distil.recipe.resolve import resolve

    loaded = load_recipe(recipe, overrides)
    directory = run_dir if run_dir is not None else Path("runs") / loaded.name
    with watching(directory, resolve(loaded)):
        from distil.pipeline.run import run as run_recipe

        result = run_recipe(loaded, directory)
    if as_json:
        _print_json(result.verdict)
    else:
        print_summary(result.directory)


@app.command()
def check(recipe: RecipePath, overrides: Overrides = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Looks in about 30 s for what goes wrong in silence, before hours are spent. Exit code 3: something is wrong."""
    from distil.check.check import check_recipe
    from distil.cli.marked import print_texts
    from distil.cli.summary import print_findings
    from distil.recipe.load import load_recipe

    findings = check_recipe(load_recipe(recipe, overrides))
    if as_json:
        _print_json([finding.as_dict() for finding in findings])
    else:
        print_texts(findings)
        print_findings(findings)
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(3)


@app.command()
def resolve(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")] = None,
    overrides: Overrides = [],  # noqa: B006
    schema: Annotated[bool, typer.Option("--schema", help="Prints the JSON Schema of recipes, for editors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prints the recipe with every default."""
    from distil.recipe.load import load_recipe
    from distil.recipe.resolve import resolve as resolve_recipe
    from distil.recipe.resolve import to_yaml

    if schema:
        from distil.recipe.schema import recipe_schema

        _print_json(recipe_schema())
        return
    if recipe is None:
        raise typer.BadParameter("give a recipe, or --schema", param_hint="RECIPE")
    resolved = resolve_recipe(load_recipe(recipe, overrides))
    if as_json:
        _print_json(resolved.model_dump(mode="json"))
    else:
        print(to_yaml(resolved), end="")


@app.command()
def compare(
    recipe: RecipePath,
    methods: Annotated[str, typer.Option(help="Kinds of terms, separated by commas; all: every one.")] = "all",
    seeds: Annotated[int | None, typer.Option(help="How many seeds; the recipe's otherwise.", min=1)] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep it; runs/NAME-compare otherwise.")
    ] = None,
    tune: Annotated[
        bool, typer.Option(help="Chooses every arm's weight on validation, by equally many trials.")
    ] = True,
    confirm: Annotated[bool, typer.Option(help="Trains the best method again with fresh seeds.")] = True,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """A league table: an arm for each method, everything else alike, held against plain distillation."""
    from distil.cli.progress import watching
    from distil.cli.summary import print_league
    from distil.compare.league import compare_methods, league_recipe
    from distil.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    names = None if methods == "all" else [name.strip() for name in methods.split(",") if name.strip()]
    directory = run_dir if run_dir is not None else Path("runs") / f"{loaded.name}-compare"
    with watching(directory, league_recipe(loaded, names, seeds=seeds, tuned=tune)):
        result = compare_methods(loaded, names, directory, seeds=seeds, tuned=tune, confirm=confirm)
    if as_json:
        _print_json(result.table)
    else:
        print_league(result.table, result.page)


@app.command()
def select(
    recipe: RecipePath,
    methods: Annotated[
        str, typer.Option(help="Kinds of terms to look at, separated by commas; auto: a few of each kind of knowledge.")
    ] = "auto",
    seeds: Annotated[int | None, typer.Option(help="How many seeds; the recipe's otherwise.", min=1)] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep it; runs/NAME-select otherwise.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Which terms, layers and teachers matter, seen on validation alone, and a recipe that is worth trying next."""
    from distil.cli.progress import watching
    from distil.cli.summary import print_selection
    from distil.compare.select import select as select_knowledge
    from distil.compare.select import selection_recipe
    from distil.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    names = None if methods == "auto" else [name.strip() for name in methods.split(",") if name.strip()]
    directory = run_dir if run_dir is not None else Path("runs") / f"{loaded.name}-select"
    with watching(directory, selection_recipe(loaded, seeds=seeds)):
        result = select_knowledge(loaded, directory, methods=names, seeds=seeds)
    if as_json:
        _print_json(result.record)
    else:
        print_selection(result.record, result.page, result.suggested)


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(help="A recipe, or a model such as timm:resnet18 or torchvision:resnet18.", metavar="MODEL")
    ],
    image: Annotated[
        str, typer.Option(metavar="C,H,W", help="The input of a model that is not in a recipe.")
    ] = "3,224,224",
    classes: Annotated[int, typer.Option(help="Classes of a model that is not in a recipe.", min=1)] = 1000,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """What is inside a network: layers to tap, shapes, parameters, operations, depth; of a recipe also which pair."""
    from distil.check.inspection import inspect_model, inspect_recipe, named_model
    from distil.cli.summary import print_inspection
    from distil.recipe.load import load_recipe

    if ":" in model:
        shape = _image_shape(image)
        inspection = inspect_model(named_model(model), image_shape=shape, num_classes=classes)
    else:
        inspection = inspect_recipe(load_recipe(Path(model), overrides))
    if as_json:
        _print_json(inspection.as_dict())
    else:
        print_inspection(inspection)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """The catalogue of terms: what each pulls the student towards, what it needs, and its source."""
    from distil.cli.summary import print_methods
    from distil.objective.catalogue import method_records

    if as_json:
        _print_json(method_records())
    else:
        print_methods(method_records())


@app.command()
def report(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Writes the curves for TensorBoard there, and nothing else.")
    ] = None,
) -> None:
    """Writes report.html and MODEL_CARD.md of a run again."""
    from distil.report.card import write_model_card
    from distil.report.html import write_report
    from distil.report.tensorboard import write_tensorboard

    if tensorboard is not None:
        for folder in write_tensorboard(run_directory, tensorboard):
            print(folder)
        return
    print(write_report(run_directory))
    print(write_model_card(run_directory))


def _image_shape(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"found {text!r}; expected channels, height and width, such as 3,224,224")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def main() -> None:
    """Entry point: errors that were raised on purpose become a message and their exit code."""
    try:
        app(prog_name="distil")
    except DistilError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Preempted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


if __name__ == "__main__":
    main()
