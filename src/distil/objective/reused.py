"""A student that some term wants to answer through its teacher's classifier, made before it is described and bound."""

from collections.abc import Iterable, Mapping, Sequence

from distil.core.errors import CompatibilityError
from distil.core.inputs import Inputs
from distil.core.seeds import derive, seeded
from distil.models.describe import describe_model
from distil.models.reuse import reuse_classifier
from distil.objective.config import Term
from distil.objective.feature_learned_config import ClassifierReuse
from distil.tasks.network import Network


def with_reused_classifier(
    network: Network,
    terms: Iterable[Term],
    teachers: Mapping[str, tuple[Network, Sequence[int] | None]],
    *,
    examples: Mapping[str, Inputs],
    seed: int,
) -> Network:
    """The network as it is, or, where a term of kind ``simkd`` is there, with the classifier of that term's teacher.

    Args:
        network: of the student.
        terms: of all its stages.
        teachers: trained networks with the order of their classes.
        examples: an input of the student (``student``) and of each teacher, by name.
        seed: of the projector's initial weights.

    Raises:
        CompatibilityError: the classifiers of two teachers are wanted.
        ModelError: a network does not end in a linear layer.
    """
    wanted = [term for term in terms if isinstance(term, ClassifierReuse) and term.weight > 0]
    reusing = {term.teacher or next(iter(teachers), "") for term in wanted}
    if not reusing:
        return network
    if len(reusing) > 1:
        raise CompatibilityError(f"a student has one classifier, and simkd asks for those of {sorted(reusing)}")
    (name,) = reusing
    if name not in teachers:
        raise CompatibilityError(f"simkd: there is no teacher {name!r}; the teachers are {sorted(teachers) or 'none'}")
    teacher, order = teachers[name]
    with seeded(derive("reused-classifier", seed)):
        model = reuse_classifier(
            network.model, teacher.model, examples["student"], teacher_example=examples[name], class_order=order
        )
    return Network(model, network.view, describe_model(model, examples["student"]))
