"""What every stage of a run works with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from distil.core.interruption import Interruption
from distil.core.placement import Placement
from distil.core.run_directory import RunDirectory
from distil.data.example import Splits
from distil.recipe.recipe import ResolvedRecipe
from distil.tasks.choice import make_task
from distil.tasks.task import Task

Output = TypeVar("Output")


@dataclass(frozen=True, eq=False)
class Context:
    """A run: its recipe, its data, its directory, and where it computes."""

    recipe: ResolvedRecipe
    splits: Splits
    directory: RunDirectory
    placement: Placement
    interruption: Interruption

    @property
    def task(self) -> Task:
        """What networks are to say about an example."""
        return make_task(next(iter(self.recipe.tasks.values())))

    def once(
        self,
        name: str,
        inputs: Mapping[str, Any],
        produce: Callable[[], Output],
        save: Callable[[Output, Path], Sequence[Path]],
        load: Callable[[Path], Output],
    ) -> Output:
        """``RunDirectory.once``, between two chances to stop."""
        self.interruption.stop_here()
        return self.directory.once(name, inputs, produce, save, load)

    def notice(self, text: str) -> None:
        """A sentence for whoever watches the run."""
        self.directory.notice(text)
