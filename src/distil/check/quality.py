"""Does a teacher know more than a predictor that looks at nothing? Measured on the very input it gets in the run."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from distil.check.finding import Finding
from distil.check.teacher import Candidate
from distil.check.trivial import byte_frequencies, trivial_predictor
from distil.data.example import Examples, TextExamples
from distil.data.text_view import TextView
from distil.knowledge.teacher import class_order
from distil.report.number import metric_name
from distil.tasks.network import Network
from distil.tasks.score import Scores, score
from distil.tasks.task import Task
from distil.tasks.tokens import CausalLanguageModel

NEW_WEIGHTS_SHOWN = 3
SHARE_ABOVE_TRIVIAL = 0.1  # of the way from the predictor that looks at nothing to always right: less is chance


def check_quality(candidate: Candidate, examples: Examples, task: Task) -> Iterator[Finding]:
    """Its metric on training examples, held against a predictor that looks at nothing; only where it has weights."""
    if not candidate.has_weights:
        yield _without_weights(candidate)
        return
    network = _as_measured(candidate.network, examples, task)
    batches = task.batches(examples, {candidate.name: network.view})
    scores = score(candidate.frozen.as_module(), batches, view=candidate.name, ask=task.ask)
    if task.one_class:
        yield _of_classes(candidate, scores, examples)
    else:
        yield from _of_task(candidate, network, scores, examples, task)


def _without_weights(candidate: Candidate) -> Finding:
    who = f"teacher {candidate.name}"
    if candidate.published and candidate.drawn:
        new = candidate.drawn
        shown = ", ".join(new[:NEW_WEIGHTS_SHOWN]) + (", ..." if len(new) > NEW_WEIGHTS_SHOWN else "")
        missing = f"{len(new)} of its weights ({shown}) were not published and are new"
        if not candidate.is_trained_here:
            return Finding(
                "wrong",
                f"{who}: {missing}, and nothing trains them",
                why="they are random numbers, so it answers at random and would teach that",
                remedy=f"give teachers.{candidate.name} a training, or a model that was published for this task",
            )
        return Finding("fine", f"{who}: {missing}: not measured; it is trained first when the recipe runs")
    return Finding("fine", f"{who}: no weights yet: not measured; it is trained first when the recipe runs")


def _of_classes(candidate: Candidate, scores: Scores, examples: Examples) -> Finding:
    decisions, labels = scores.logits.argmax(dim=-1), scores.labels
    accuracy = (decisions == labels).double().mean().item()
    most = labels.bincount().max().item() / len(labels)
    said = (
        f"teacher {candidate.name}: {accuracy:.4f} accuracy on {len(decisions)} training examples, fed as the run "
        f"will feed them; always the most frequent class: {most:.4f}"
    )
    order, reordered = _best_order(decisions, labels, examples.num_classes)
    if reordered > accuracy + 0.2 and reordered >= _least_above(most, len(labels)):
        # the decisions are in the order of the data already; the remedy lists the teacher's own outputs
        names = examples.class_names
        outputs = class_order(candidate.name, candidate.config.classes, names) or range(len(names))
        listed = [names[label] for _, label in sorted(zip(outputs, order, strict=True))]
        return Finding(
            "wrong",
            f"{said}; with its classes in another order it would be {reordered:.4f}",
            why="it answers for the right classes under wrong numbers, and would teach them to the student",
            remedy=f"set teachers.{candidate.name}.classes to {listed}",
        )
    if accuracy < _least_above(most, len(labels)):
        return _no_better(candidate, said, examples)
    return Finding("fine", said)


def _least_above(trivial: float, count: int) -> float:
    """The least accuracy that is not chance: some of the way up, and two standard errors."""
    return trivial + max(SHARE_ABOVE_TRIVIAL * (1 - trivial), 2 * (trivial * (1 - trivial) / count) ** 0.5)


def _as_measured(network: Network, examples: Examples, task: Task) -> Network:
    """With the view that the task measures it by."""
    return replace(network, view=task.test_view(network.view, examples))


def _of_task(
    candidate: Candidate, network: Network, scores: Scores, examples: Examples, task: Task
) -> Iterator[Finding]:
    measured = task.measure(scores, examples, network.view)
    trivial = trivial_predictor(task, network, examples, scores)
    listed = ", ".join(f"{metric_name(name)} {value:.4f}" for name, value in measured.metrics.items())
    said = (
        f"teacher {candidate.name}: {listed} on {len(examples)} training examples, fed as the run will feed them; "
        f"{trivial.name}: {metric_name(task.metric)} {trivial.value:.4f}"
    )
    if isinstance(candidate.network.view, TextView) and candidate.network.view.columns != _columns(network):
        own = ", ".join(candidate.network.view.columns)
        yield Finding("fine", f"{said}; it teaches by {own} alone, so this says how well it knows the others too")
        return
    value, values = measured.metrics[task.metric], np.asarray(measured.values, dtype=np.float64)
    error = float(values.std() / max(len(values) - 1, 1) ** 0.5)
    of_the_way = SHARE_ABOVE_TRIVIAL * (1 - trivial.value) if task.higher_is_better else 0.0  # such metrics end at 1
    if task.signed(value) - task.signed(trivial.value) <= max(2 * error, of_the_way):
        yield _no_better(candidate, said, examples)
        return
    if isinstance(task, CausalLanguageModel):
        bytes_alone = byte_frequencies(network, examples)
        said += f"; frequencies of bytes: {bytes_alone:.4f}"
        if value >= bytes_alone:
            yield Finding(
                "suspicious",
                said,
                why="it says less about these texts than the frequencies of their bytes do",
                remedy="look whether its tokenizer is its own, and whether the texts are of its language and kind",
            )
            return
    yield Finding("fine", said)


def _columns(network: Network) -> tuple[str, ...]:
    assert isinstance(network.view, TextView)
    return network.view.columns


def _no_better(candidate: Candidate, said: str, examples: Examples) -> Finding:
    on_texts = isinstance(examples, TextExamples)
    fed = "tokenizer, length" if on_texts else "normalisation, resolution"
    keys = "tokenizer, max_length, columns" if on_texts else "size, mean, std"
    if candidate.is_trained_here:
        return Finding(
            "suspicious",
            said,
            why=f"its weights are no help before its training here: is it fed by its own {fed}?",
            remedy=f"set teachers.{candidate.name}.inputs ({keys}) as they were when it was trained",
        )
    return Finding(
        "wrong",
        said,
        why=f"that is about chance: its {fed} or classes are not those of its training",
        remedy=f"set teachers.{candidate.name}.inputs ({keys}) and classes as they were then",
    )


def _best_order(
    decisions: Int[Tensor, " examples"], labels: Int[Tensor, " examples"], num_classes: int
) -> tuple[list[int], float]:
    """The assignment of outputs to classes that agrees best with the labels, and its accuracy."""
    table = torch.zeros(num_classes, num_classes)
    table.index_put_((decisions, labels), torch.ones(len(labels)), accumulate=True)
    rows, columns = linear_sum_assignment(-table.numpy())
    return [int(column) for column in columns], float(table.numpy()[rows, columns].sum() / len(labels))
