"""Baselines: by hand where a hand can, against scikit-learn's own parts, and on real texts within what is known."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from distil.core.errors import DataError
from distil.evaluate.baseline import (
    INVERSE_PENALTIES,
    LabelledTexts,
    majority_class,
    tfidf_logistic_regression,
    unigram_language_model,
)

GOOD = ("good film", "really good", "a good one", "good fun")
BAD = ("bad film", "really bad", "a bad one", "not good")


def labelled(texts: Sequence[str], labels: Sequence[int]) -> LabelledTexts:
    return LabelledTexts(texts, np.array(labels))


TRAIN = labelled([*GOOD, *BAD], [1] * 4 + [0] * 4)
CHINESE = labelled(["房间很好", "服务很好", "早餐很好", "房间很差", "服务很差", "早餐很差"], [1, 1, 1, 0, 0, 0])


def noisy(seed: int, count: int) -> LabelledTexts:
    """Texts of five words, each of which speaks for its class two times out of three."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=count)
    words = [
        ["w" + str(2 * generator.integers(30) + (label ^ (generator.random() < 1 / 3))) for _ in range(5)]
        for label in labels
    ]
    return LabelledTexts([" ".join(each) for each in words], labels)


def test_the_majority_is_of_the_training_labels_that_are_known() -> None:
    test = labelled(["a", "b", "c"], [2, 0, 2])
    assert majority_class(labelled("abc", [2, 2, 0]), test).values.tolist() == [1, 0, 1]
    assert majority_class(labelled("abcdef", [0, 0, 2, -1, -1, -1]), test).values.tolist() == [0, 1, 0]
    assert majority_class(labelled("ab", [2, 0]), test).values.tolist() == [0, 1, 0]  # of equal ones the first
    assert "class 2" in majority_class(labelled("a", [2]), test).note


def test_without_a_known_label_there_is_nothing_to_learn_from() -> None:
    hidden = labelled("ab", [-1, -1])
    with pytest.raises(DataError, match="none of the 2 training texts has one"):
        majority_class(hidden, TRAIN)
    with pytest.raises(DataError, match="none of the 2 training texts has one"):
        tfidf_logistic_regression(hidden, None, TRAIN)


def test_words_tell_the_classes_apart_and_pairs_of_words_what_words_do_not() -> None:
    test = labelled(["GOOD!", "bad", "a good film", "the bad film", "good"], [1, 0, 1, 0, 0])
    found = tfidf_logistic_regression(TRAIN, None, test)
    assert found.values.tolist() == [1, 1, 1, 1, 0]
    assert found.values.dtype == np.float64
    # good film really a one fun bad not; good film, really good, a good, good one, good fun, and of bad four; not good
    assert "TF-IDF of 1 or 2 words, 18 of them, from 8 labelled texts; C is 1, as there is no validation" in found.note


def test_a_contraction_is_one_word() -> None:
    train = labelled(["don't", "can’t", "do n't"], [0, 1, 1])
    note = tfidf_logistic_regression(train, None, train).note
    assert "of 1 or 2 words, 5 of them" in note  # don't, can’t, do, n't, do n't


def test_chinese_is_read_by_characters() -> None:
    """What occurs in two texts or more, counted by hand: 9 characters, 8 pairs, 3 triples."""
    test = labelled(["酒店很好", "酒店很差"], [1, 0])
    found = tfidf_logistic_regression(CHINESE, None, test)
    assert found.values.tolist() == [1, 1]
    # 房 间 服 务 早 餐 很 好 差; 房间 服务 早餐 间很 务很 餐很 很好 很差; 房间很 服务很 早餐很
    assert "TF-IDF of 1 to 3 characters, 20 of them" in found.note


def test_most_characters_decide_how_texts_are_read() -> None:
    mixed = labelled(["很好 wonderful", "很差 terrible", "很好 nice", "很差 bad"], [1, 0, 1, 0])
    assert "of 1 or 2 words" in tfidf_logistic_regression(mixed, None, mixed).note
    mostly = labelled(["房间很好 ok", "房间很差 ok"], [1, 0])
    assert "of 1 to 3 characters" in tfidf_logistic_regression(mostly, None, mostly).note


def test_hidden_labels_are_not_learned_from() -> None:
    hidden = labelled([*TRAIN.texts, "good"], [*TRAIN.labels.tolist(), -1])
    first, second = (tfidf_logistic_regression(each, None, TRAIN) for each in (TRAIN, hidden))
    assert second.note == first.note
    assert np.array_equal(second.values, first.values)


def test_32_the_penalty_is_chosen_on_validation_alone() -> None:
    """Against scikit-learn's parts put together here; other test labels choose no other penalty."""
    train, validation, test = noisy(0, 200), noisy(1, 150), noisy(2, 150)
    found = tfidf_logistic_regression(train, validation, test)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = vectorizer.fit_transform(train.texts)
    models = [LogisticRegression(C=c, max_iter=1000).fit(features, train.labels) for c in INVERSE_PENALTIES]
    scores = [model.score(vectorizer.transform(validation.texts), validation.labels) for model in models]
    assert len(set(scores)) > 1
    best = models[scores.index(max(scores))]
    assert f"C is {best.C:g}, of 1, 4, 16, 64, 256 the best on validation ({max(scores):.4f})" in found.note
    assert np.array_equal(found.values, best.predict(vectorizer.transform(test.texts)) == test.labels)
    flipped = tfidf_logistic_regression(train, validation, LabelledTexts(test.texts, 1 - test.labels))
    assert flipped.note == found.note
    assert np.array_equal(flipped.values, 1 - found.values)


def test_31_the_same_texts_give_the_same_values() -> None:
    first, second = (tfidf_logistic_regression(noisy(0, 200), noisy(1, 150), noisy(2, 150)) for _ in range(2))
    assert np.array_equal(first.values, second.values)
    assert first.note == second.note


def test_texts_that_cannot_be_learned_from_are_refused() -> None:
    with pytest.raises(DataError, match="needs two classes, and all 2 known labels are 1"):
        tfidf_logistic_regression(labelled(["a b", "c", "d"], [1, 1, -1]), None, TRAIN)
    with pytest.raises(DataError, match="finds nothing to count in 2 labelled texts"):
        tfidf_logistic_regression(labelled(["!", "?"], [0, 1]), None, TRAIN)


def test_bits_of_bytes_by_hand() -> None:
    """Of 3 training bytes a is two: it costs log2(259 / 3), b log2(259 / 2), and any other log2(259)."""
    found = unigram_language_model(["aa", "b"], ["a", "ab", "é"])
    a, b, other = math.log2(259 / 3), math.log2(259 / 2), math.log2(259)
    assert found.values == pytest.approx([a, (a + b) / 2, other])
    assert f"{(2 * a + b + 2 * other) / 5:.4f} bits per byte" in found.note
    assert "3 training bytes" in found.note


def test_an_untrained_predictor_pays_8_bits_a_byte() -> None:
    assert unigram_language_model([], ["any"]).values == pytest.approx([8.0])


def test_an_empty_test_text_is_refused() -> None:
    with pytest.raises(DataError, match="test text 1 is empty"):
        unigram_language_model(["a"], ["a", ""])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least", "most"), [("sst2", 0.78, 0.84), ("chnsenticorp", 0.87, 0.93)])
def test_on_real_reviews_it_is_as_good_as_such_models_are(
    data_folder: Path, name: str, least: float, most: float
) -> None:
    """On these two sets bags of n-grams are known to lie near 0.81 and 0.90."""
    datasets = pytest.importorskip("datasets")
    table = datasets.load_dataset(str(data_folder / name))
    splits = [
        labelled(list(table[split]["sentence"]), list(table[split]["label"]))
        for split in ("train", "validation", "test")
    ]
    assert least < tfidf_logistic_regression(*splits).values.mean() < most


def test_on_real_text_bytes_cost_less_than_by_chance(data_folder: Path) -> None:
    """The entropy of single bytes of English is between 4 and 5 bits."""
    text = next(iter(sorted((data_folder / "tinyshakespeare").glob("*train*")))).read_text()
    half = len(text) // 2
    assert 4 < unigram_language_model([text[:half]], [text[half:]]).values[0] < 5
