"""Breaks the code on purpose, on a copy, and sees the named test fail by an assertion: the tests can fail.

That the same tests pass on the code as it is, the suite sees by itself.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# what is broken: file, the text in it, what stands there instead, the test that must notice
MUTATIONS: dict[str, tuple[str, str, str, str]] = {
    "T^2 is gone": (
        "losses/logit.py",
        "return temperature**2 * (teacher * gap)",
        "return (teacher * gap)",
        "tests/losses/test_logit.py -k test_03",
    ),
    "KL runs the other way": (
        "losses/logit.py",
        "gap = (log_teacher - log_student)",
        "gap = (log_student - log_teacher)",
        "tests/losses/test_logit.py -k test_04",
    ),
    "unlabelled examples are not masked": (
        "objective/unit.py",
        "return given if chosen is None or bool(chosen.all()) else _rows(given, chosen)",
        "return given",
        "tests/objective/test_objective.py -k test_11",
    ),
    "the denominator is the micro-batch": (
        "objective/objective.py",
        "values.sum() / max(count, 1)",
        "values.sum() / max(len(values), 1)",
        "tests/objective/test_objective.py -k test_13",
    ),
    "a term of a batch takes pieces": (
        "objective/objective.py",
        "if len(given.ids) != count:",
        "if False:",
        "tests/objective/test_objective.py -k test_13",
    ),
    "the denominator of language models is the number of texts": (
        "objective/unit.py",
        "return int(self._answers(term).sum())",
        "return len(self._batch)",
        "tests/suites/test_split_invariance.py -k test_13_the_denominator",
    ),
    "a term on tokens is divided by the number of texts": (
        "objective/unit.py",
        "return int(self._real().sum())",
        "return len(self._batch)",
        "tests/objective/test_unit.py -k test_13_the_denominator",
    ),
    "padding counts in terms on tokens": (
        "objective/unit.py",
        "return value[mask]",
        "return value.flatten(0, 1)",
        "tests/objective/test_unit.py -k test_11_more_padding",
    ),
    "padding counts in the mean of a text's tokens": (
        "objective/unit.py",
        "weights = mask.to(value.dtype).unsqueeze(-1)",
        "weights = (mask | True).to(value.dtype).unsqueeze(-1)",
        "tests/objective/test_unit.py -k test_11_more_padding",
    ),
    "terms on attention get no mask": (
        "objective/unit.py",
        'mask = self._mask() if unit == "example" else None',
        "mask = None",
        "tests/objective/test_unit.py -k test_11_more_padding",
    ),
    "padding counts as a key of attention": (
        "losses/attention.py",
        "attention = attention.masked_fill(~mask[:, None, None, :], 0.0)",
        "attention = attention * 1.0",
        "tests/losses/test_attention.py -k test_11_padding_adds",
    ),
    "padding counts as a key of relations": (
        "losses/attention.py",
        "scores = scores.masked_fill(absent[:, None, None, :], -torch.inf)",
        "scores = scores * 1.0",
        "tests/losses/test_attention.py -k test_11_padding_adds",
    ),
    "padding counts as a query": (
        "losses/attention.py",
        "return values.masked_fill(~mask[:, None, :], 0.0).sum(dim=(1, 2)) / real",
        "return values.sum(dim=(1, 2)) / real",
        "tests/losses/test_attention.py -k test_11_padding_adds",
    ),
    "padding counts in attention maps": (
        "losses/attention.py",
        "counted = mask[:, None, :, None] & mask[:, None, None, :]",
        "counted = mask[:, None, :, None]",
        "tests/losses/test_attention.py -k test_11_scores",
    ),
    "a causal model is taught the token that it reads": (
        "tasks/causal_language_modelling.py",
        "input_ids.roll(-1, dims=1).masked_fill(~mask, 0)",
        "input_ids.masked_fill(~mask, 0)",
        "tests/tasks/test_causal_language_modelling.py -k test_10",
    ),
    "a causal model is asked after padding": (
        "tasks/causal_language_modelling.py",
        "asked = real[:, 1:] & real[:, :-1]",
        "asked = real[:, 1:]",
        "tests/tasks/test_causal_language_modelling.py -k test_12",
    ),
    "a prompt is supervised": (
        "tasks/causal_language_modelling.py",
        "asked = asked & (real.cumsum(dim=1)[:, 1:] > prompt_lengths[:, None])",
        "asked = asked & (real.cumsum(dim=1)[:, 1:] > 0)",
        "tests/tasks/test_causal_language_modelling.py -k test_11_prompts",
    ),
    "shared places are counted from the end": (
        "losses/vocabulary.py",
        "return logits[..., :ids] if isinstance(ids, int)",
        "return logits[..., -ids:] if isinstance(ids, int)",
        "tests/losses/test_vocabulary.py -k test_24_identical",
    ),
    "the padding of a vocabulary is taken for tokens": (
        "tasks/side.py",
        "return self.network(inputs)[..., : self.num_tokens]",
        "return self.network(inputs)",
        "tests/tasks/test_side.py -k test_24",
    ),
    "the memory-flat loss does without its mask": (
        "losses/memory_flat.py",
        "return weighted if mask is None else mask.reshape(-1)",
        "return weighted",
        "tests/losses/test_memory_flat.py -k test_10",
    ),
    "the memory-flat loss keeps its last chunk alone": (
        "losses/memory_flat.py",
        "of_weight[:size].addmm_(slope.T, states)",
        "of_weight[:size] = slope.T @ states",
        "tests/losses/test_memory_flat.py -k test_13",
    ),
    "the memory-flat loss takes the padding of its head": (
        "losses/memory_flat.py",
        "weight = weight[: job.head.size].to(",
        "weight = weight[len(weight) - job.head.size :].to(",
        "tests/losses/test_memory_flat.py -k test_24_identical",
    ),
    "a captured value is written over in place": (
        "models/tap.py",
        "self._add(tap, value.clone())",
        "self._add(tap, value)",
        "tests/models/test_tap.py -k test_19_an_in_place",
    ),
    "auto leaves out the last layer": (
        "objective/alignment.py",
        "chosen: list[int] = [len(many) - 1]",
        "chosen: list[int] = [max(len(many) - 2, len(few) - 1)]",
        "tests/objective/test_alignment.py -k test_22",
    ),
    "the teacher is not frozen": (
        "knowledge/teacher.py",
        ".requires_grad_(False).eval()",
        "",
        "tests/knowledge/test_teacher.py -k test_15",
    ),
    "the teacher follows its parent into train mode": (
        "knowledge/teacher.py",
        "if any(module.training for module in self._model.modules()):",
        "if False:",
        "tests/knowledge/test_teacher.py -k test_15",
    ),
    "evaluation leaves the student in evaluation mode": (
        "tasks/score.py",
        "module.training = mode",
        "pass",
        "tests/train/test_loop.py -k test_17",
    ),
    "a checkpoint is not verified": (
        "train/checkpoint.py",
        "if sha256_of(path / name) != expected:",
        "if False:",
        "tests/train/test_checkpoint.py -k test_30",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_noticed_by_its_test(name: str, tmp_path: Path) -> None:
    file, old, new, test = MUTATIONS[name]
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    path = tmp_path / "src" / "distil" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} no longer holds {old!r} once; mend this table"
    path.write_text(text.replace(old, new))
    broken = run_tests(test, tmp_path)
    assert broken.returncode == 1, broken.stdout
    assert "ImportError" not in broken.stdout
    assert "error during collection" not in broken.stdout.lower()
    assert re.search(r"^E +(assert |AssertionError|Failed: DID NOT RAISE)", broken.stdout, re.MULTILINE), broken.stdout


def run_tests(test: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *test.split()],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
