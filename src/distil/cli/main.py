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
    from distil.cli.summary import print_findings
    from distil.recipe.load import load_recipe

    findings = check_recipe(load_recipe(recipe, overrides))
    if as_json:
        _print_json([finding.as_dict() for finding in findings])
    else:
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
def report(run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]) -> None:
    """Writes report.html and MODEL_CARD.md of a run again."""
    from distil.report.card import write_model_card
    from distil.report.html import write_report

    print(write_report(run_directory))
    print(write_model_card(run_directory))


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
