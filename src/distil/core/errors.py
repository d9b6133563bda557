"""Every error that distil raises on purpose, and the exit code of the command line for each.

::

    DistilError                 1
      RecipeError               2   the recipe, an override or a file named on the command line is wrong
      MissingExtraError         2   an optional dependency is not installed
      DataError                 3   the data cannot be read, or are not what the task needs
      ModelError                3   a model cannot be built, or its weights do not fit
      CompatibilityError        3   teacher, student, data and objective do not fit together
      IntegrityError            3   a file is not the one that was written
      ExportError               3   an artefact cannot be made or does not behave like the model
      NumericError              4   a loss or a weight is not finite
      ResourceError             5   memory, disk, a lock or permission is missing
    Preempted                  75   not an error: stopped by a signal, saved, can be resumed

A message says where, what was found, what was expected, and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe: ``where`` is a dotted key, ``line`` its line in its file, None without one."""

    where: str
    what: str
    line: int | None = None

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line is not None else ""
        return f"{self.where}{line}: {self.what}" if self.where else f"{self.what}{line}"


class DistilError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class RecipeError(DistilError):
    """The recipe cannot be used; ``problems`` lists everything wrong with it, not only the first."""

    exit_code = 2

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *(f"  {problem}" for problem in self.problems)]))


class MissingExtraError(DistilError):
    """An optional dependency is not installed; the message is the pip line that installs it."""

    exit_code = 2

    def __init__(self, module: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {module!r}. Install it with: pip install 'distil[{extra}]'")


class DataError(DistilError):
    exit_code = 3


class ModelError(DistilError):
    exit_code = 3


class CompatibilityError(DistilError):
    exit_code = 3


class IntegrityError(DistilError):
    exit_code = 3


class ExportError(DistilError):
    exit_code = 3


class NumericError(DistilError):
    exit_code = 4


class ResourceError(DistilError):
    exit_code = 5


class Preempted(BaseException):
    """The run was asked to stop, has saved, and goes on when started again."""

    exit_code = 75
