"""Students: built by themselves, or cut from a teacher and starting with its weights."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from distil.core.errors import CompatibilityError, ModelError
from distil.core.seeds import seeded
from distil.data.config import InputsConfig
from distil.data.example import Examples
from distil.data.text_view import TextView
from distil.models.config import ModelConfig
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.models.importance import measure_importance
from distil.models.shrink import shrink
from distil.models.shrink_config import ShrinkConfig
from distil.models.shrink_vocabulary import count_tokens, shrink_vocabulary
from distil.tasks.language import texts_of
from distil.tasks.network import Network, build_network, described_network
from distil.tasks.task import Task
from distil.tasks.text_network import for_task, text_view

IMPORTANCE_EXAMPLES = 256


def build_student(
    model: ModelConfig | None,
    from_teacher: ShrinkConfig | None,
    inputs: InputsConfig,
    *,
    teachers: Mapping[str, Network],
    teacher: str | None,
    examples: Examples,
    seed: int,
    task: Task,
) -> Network:
    """The student as it starts.

    Args:
        model: its own network; None: it is cut from a teacher.
        from_teacher: what it keeps of that teacher.
        inputs: how its input is made.
        teachers: with the weights that they teach with.
        teacher: that it is cut from; None: the only one.
        examples: whose classes it is for.
        seed: of initial weights that no teacher gives.
        task: that it is for.

    Raises:
        ModelError: it cannot be built, or the teacher cannot be cut.
        CompatibilityError: there is no such teacher.
    """
    if model is not None:
        return build_network(model, inputs, examples=examples, seed=seed, task=task)
    assert from_teacher is not None
    if teacher is None and len(teachers) != 1:
        raise CompatibilityError(f"student.teacher: name the teacher that it is cut from: {', '.join(teachers)}")
    name = teacher if teacher is not None else next(iter(teachers))
    if name not in teachers:
        raise CompatibilityError(f"student.teacher: there is no teacher {name!r}; there are {', '.join(teachers)}")
    return cut_network(teachers[name], from_teacher, inputs, examples=examples, task=task, seed=seed)


def cut_network(
    teacher: Network, config: ShrinkConfig, inputs: InputsConfig, *, examples: Examples, task: Task, seed: int = 0
) -> Network:
    """A smaller network with the teacher's own weights and its tokenizer; the seed is of a projection of its own."""
    whole = next((each for each in teacher.model.modules() if isinstance(each, HuggingFaceNetwork)), None)
    if whole is None or not isinstance(teacher.view, TextView):
        raise ModelError("student.from_teacher: the teacher is no model of kind huggingface; give student.model")
    texts = texts_of(examples)
    view = text_view(None, inputs, examples=texts, task=task, own=teacher.view)
    pretrained: Any = whole.pretrained
    if config.vocabulary is not None:
        said = [str(text) for name in view.columns for text in texts.columns[name]]
        counts = count_tokens(view.tokenizer, said)
        pretrained, tokenizer = shrink_vocabulary(pretrained, view.tokenizer, counts=counts, size=config.vocabulary)
        view = text_view(None, inputs, examples=texts, task=task, own=_reading_by(teacher.view, tokenizer))
    importance = None
    if config.hidden is not None or config.heads is not None or config.feed_forward is not None:
        asked = copy.deepcopy(pretrained).eval()  # the teacher's own mode stays as it is
        importance = measure_importance(asked, _batches(texts, view))
    smaller = HuggingFaceNetwork(
        shrink(pretrained, config, importance=importance),
        head=task.head,
        pooling=whole.pooling,  # type: ignore[arg-type]
        normalise=whole.normalise,
    )
    expected = task.num_outputs(examples)
    with seeded(seed):
        model = for_task(smaller, task, num_tokens=view.tokenizer.get_vocab_size())
    _keep_surroundings(model, teacher.model)
    return described_network(model, view, examples=examples, task=task, expected=expected, who="student")


def _keep_surroundings(student: nn.Module, teacher: nn.Module) -> None:
    """What a task adds to a network of transformers, such as a projection, is the teacher's where it has that shape."""
    theirs = dict(teacher.named_parameters())
    for name, parameter in student.named_parameters():
        known = theirs.get(name)
        if "pretrained." not in name and known is not None and known.shape == parameter.shape:
            parameter.data.copy_(known.data)


def _reading_by(view: TextView, tokenizer: Any) -> TextView:
    """The view with another tokenizer, in which the padding may have another number."""
    padding = tokenizer.token_to_id(view.tokenizer.id_to_token(view.pad_id))
    return replace(view, tokenizer=tokenizer, pad_id=0 if padding is None else padding, _known={})


def _batches(examples: Examples, view: TextView) -> Iterator[dict[str, Tensor]]:
    chosen = texts_of(examples.select(torch.arange(min(IMPORTANCE_EXAMPLES, len(examples)))))
    inputs = view(chosen.columns)
    for start in range(0, len(chosen), 32):
        piece = {name: value[start : start + 32] for name, value in inputs.items()}
        yield {name: value.flatten(0, 1) if value.ndim == 3 else value for name, value in piece.items()}
