"""Baselines: what can be had without a network, on the same test texts, as points of reference beside the arms."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from distil.core.errors import DataError
from distil.data.example import NO_LABEL
from distil.data.text_augmentation import UNSPACED

INVERSE_PENALTIES = (1.0, 4.0, 16.0, 64.0, 256.0)  # C of the logistic regression; without validation 1 is taken
NUM_BYTES = 256
_UNSPACED = re.compile(f"[{UNSPACED}]")


@dataclass(frozen=True, eq=False)
class Baseline:
    """A reference: its score on every test text, in the unit of the task's metric, and how it was made."""

    name: str
    values: Float[np.ndarray, " texts"]
    note: str


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts with their class numbers; ``NO_LABEL`` where a training label may not be seen."""

    texts: Sequence[str]
    labels: Int[np.ndarray, " texts"]

    def known(self) -> "LabelledTexts":
        """Those with a label.

        Raises:
            DataError: there are none.
        """
        rows = np.flatnonzero(self.labels != NO_LABEL)
        if len(rows) == 0:
            raise DataError(f"a baseline learns from labels, and none of the {len(self.labels)} training texts has one")
        return LabelledTexts([self.texts[row] for row in rows.tolist()], self.labels[rows])


def majority_class(train: LabelledTexts, test: LabelledTexts) -> Baseline:
    """Always says the most frequent training label, of equally frequent ones the first; 1 where that is right."""
    numbers, counts = np.unique(train.known().labels, return_counts=True)
    common = int(numbers[counts.argmax()])
    values = (test.labels == common).astype(np.float64)
    return Baseline("majority class", values, f"Always class {common}, the most frequent of the training labels.")


def tfidf_logistic_regression(train: LabelledTexts, validation: LabelledTexts | None, test: LabelledTexts) -> Baseline:
    """Logistic regression on TF-IDF weights of n-grams; 1 where it is right.

    The n-grams are 1 or 2 words; where most characters of the training texts are of a script without spaces, 1 to 3
    characters that occur in two texts or more. Counts enter by their logarithm; case is ignored. The inverse penalty C
    is the one of the grid with the highest validation accuracy, of equal ones the smallest; without validation it is
    1. Nothing is random.

    Raises:
        DataError: the training labels are of fewer than two classes, or their texts have no such n-gram.

    Source: Wang, Manning 2012, "Baselines and Bigrams", section 2, for bigrams of words as a strong baseline.
    """
    known = train.known()
    classes = np.unique(known.labels)
    if len(classes) < 2:
        raise DataError(f"a classifier needs two classes, and all {len(known.labels)} known labels are {classes[0]}")
    characters = _mostly_unspaced(known.texts)
    vectorizer = _vectorizer(characters)
    try:
        features = vectorizer.fit_transform(known.texts)
    except ValueError as error:
        raise DataError(f"TF-IDF finds nothing to count in {len(known.texts)} labelled texts: {error}") from error
    fitted, chosen = _choose(features, known.labels, vectorizer, validation)
    values = (fitted.predict(vectorizer.transform(test.texts)) == test.labels).astype(np.float64)
    grams = "1 to 3 characters" if characters else "1 or 2 words"
    note = f"TF-IDF of {grams}, {features.shape[1]} of them, from {len(known.texts)} labelled texts; {chosen}."
    return Baseline("TF-IDF and logistic regression", values, note)


def unigram_language_model(train_texts: Sequence[str], test_texts: Sequence[str]) -> Baseline:
    r"""Bits that each byte of a test text costs where bytes are guessed by their frequency alone; lower is better.

    .. math:: -\frac{1}{n} \sum_{i=1}^{n} \log_2 \frac{c(b_i) + 1}{N + 256}

    with b the n bytes of the text in UTF-8, c the counts of the N bytes of the training texts, and 1 added to each of
    the 256. What any language model must beat.

    Returns:
        One value for each test text. The bits per byte of the whole test split are their mean weighted by length, and
        stand in the note.

    Raises:
        DataError: a test text has no byte.
    """
    counts = np.bincount(_bytes("".join(train_texts)), minlength=NUM_BYTES) + 1
    bits = -np.log2(counts / counts.sum())
    texts = [_bytes(text) for text in test_texts]
    empty = [row for row, content in enumerate(texts) if len(content) == 0]
    if empty:
        raise DataError(
            f"test text {empty[0]} is empty, so no byte of it can be guessed; {len(empty)} are. Remove them"
        )
    values = np.array([bits[content].mean() for content in texts])
    total = float(np.average(values, weights=[len(content) for content in texts]))
    note = (
        f"Frequencies of {counts.sum() - NUM_BYTES} training bytes, 1 added to each: {total:.4f} bits per byte in all."
    )
    return Baseline("unigrams of bytes", values, note)


def _vectorizer(characters: bool) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams: dict[str, Any] = (
        {"analyzer": "char", "ngram_range": (1, 3), "min_df": 2}
        if characters
        else {"token_pattern": r"\w+(?:['’]\w+)*", "ngram_range": (1, 2)}  # don't stays whole
    )
    return TfidfVectorizer(sublinear_tf=True, **grams)


def _choose(features: Any, labels: np.ndarray, vectorizer: Any, validation: LabelledTexts | None) -> tuple[Any, str]:
    """The model that does best on validation, and how it was chosen."""
    if validation is None:
        return _fit(features, labels, inverse_penalty=1.0), "C is 1, as there is no validation split"
    seen = vectorizer.transform(validation.texts)
    models = [_fit(features, labels, inverse_penalty=penalty) for penalty in INVERSE_PENALTIES]
    accuracies = [float((model.predict(seen) == validation.labels).mean()) for model in models]
    best = int(np.argmax(accuracies))
    grid = ", ".join(f"{penalty:g}" for penalty in INVERSE_PENALTIES)
    return models[best], f"C is {models[best].C:g}, of {grid} the best on validation ({accuracies[best]:.4f})"


def _fit(features: Any, labels: np.ndarray, *, inverse_penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # the vectors are short: threads wait for each other, longer than they work
        return LogisticRegression(C=inverse_penalty, max_iter=1000).fit(features, labels)


def _mostly_unspaced(texts: Sequence[str]) -> bool:
    unspaced = sum(len(_UNSPACED.findall(text)) for text in texts)
    return unspaced > 0.5 * sum(len("".join(text.split())) for text in texts)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)
