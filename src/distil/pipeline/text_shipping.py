"""Shipping of texts: a tokenizer beside the weights, and an ordinary folder of transformers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distil.data.feed import AnyView
from distil.data.text_view import TextView
from distil.data.tokenizer import PADDING_NAMES
from distil.models.huggingface_network import HuggingFaceNetwork
from distil.tasks.network import Network
from distil.tasks.side import Sides

TOKENIZER = "tokenizer.json"
FOLDER = "huggingface"
SPECIAL = {
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
    "eos_token": ("<|im_end|>", "<|endoftext|>", "</s>"),
}


def save_text_student(folder: Path, model: nn.Module, view: TextView) -> list[Path]:
    """Writes the tokenizer and, of a model of transformers, a folder that ``AutoModel`` and ``AutoTokenizer`` load."""
    path = folder / TOKENIZER
    path.write_text(view.tokenizer.to_str(pretty=True), encoding="utf-8")
    network = transformers_network(model)
    if network is None:
        return [path]
    network.save_folder(folder / FOLDER)
    _save_tokenizer(view, folder / FOLDER)
    return [path, *sorted(each for each in (folder / FOLDER).iterdir() if each.is_file())]


def transformers_network(model: nn.Module) -> HuggingFaceNetwork | None:
    """The network of transformers inside a model; None: there is none."""
    return next((module for module in model.modules() if isinstance(module, HuggingFaceNetwork)), None)


def pooling_of(model: nn.Module) -> dict[str, Any] | None:
    """How a network of transformers makes an embedding, which its own folder does not say; None: it makes none."""
    network = transformers_network(model)
    if network is None or network.head != "embedding":
        return None
    return {"pooling": network.pooling, "normalise": network.normalise}


def for_export(network: Network) -> tuple[nn.Module, AnyView]:
    """The model and view that a device gets: of a pair of texts that are embedded apart, one text at a time."""
    model, view = network.model, network.view
    if not isinstance(model, Sides) or not isinstance(view, TextView):
        return model, view
    return _OneSide(model), replace(view, columns=view.columns[:1], apart=False, _known={})


class _OneSide(nn.Module):
    def __init__(self, sides: Sides) -> None:
        super().__init__()
        self.sides = sides

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.sides({name: value.unsqueeze(1) for name, value in inputs.items()})


def _save_tokenizer(view: TextView, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    plain = type(view.tokenizer).from_str(view.tokenizer.to_str())
    plain.no_truncation()
    named = {
        role: next(name for name in names if plain.token_to_id(name) is not None)
        for role, names in SPECIAL.items()
        if any(plain.token_to_id(name) is not None for name in names)
    }
    padding = plain.id_to_token(view.pad_id)
    special = plain.get_added_tokens_decoder().get(view.pad_id)
    if padding in PADDING_NAMES or (special is not None and special.special):
        named["pad_token"] = padding  # elsewhere it is a word's, which transformers would then cut out of texts
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if view.type_ids else [])]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=plain, model_max_length=view.max_length, model_input_names=names, **named
    )
    fast.save_pretrained(str(folder))
