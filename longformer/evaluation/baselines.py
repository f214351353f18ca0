"""What labels can be predicted without a network: beside it, nobody is fooled by a high score."""

from collections.abc import Sequence

import numpy as np


def tfidf_predictions(
    texts: Sequence[str], labels: np.ndarray, asked: Sequence[str], *, problem: str, outputs: int
) -> np.ndarray | None:
    """Returns what a linear model of weighted words and pairs of words (TF-IDF) predicts.

    Args:
        texts: to learn from.
        labels: of these texts: (texts,) int of a single label, (texts, classes) of several, (texts,) float of a
            regression.
        asked: the texts to predict.
        problem: single_label, multi_label or regression.
        outputs: number of classes; 1 of a regression.

    Returns:
        (texts asked, outputs) float: probabilities of the classes, or the number; None where no two texts share a word,
        as in languages that write no spaces.
    """
    # They take seconds to import, and only the report asks for them.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=min(2, len(texts)), sublinear_tf=True, max_features=200_000)
    try:
        learned = vectorizer.fit_transform(texts)
    except ValueError:  # no words are left
        return None
    found = vectorizer.transform(asked)
    if problem == "regression":
        return np.asarray(Ridge().fit(learned, labels).predict(found)).reshape(-1, 1)

    def logistic(of_labels: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=10.0, max_iter=1_000).fit(learned, of_labels)

    probabilities = np.zeros((len(asked), outputs))
    if problem == "single_label":
        model = logistic(labels)
        probabilities[:, model.classes_] = model.predict_proba(found)
        return probabilities
    for number in range(outputs):
        # A class that all or none of the texts have needs no model.
        holds = labels[:, number]
        probabilities[:, number] = (
            holds[0] if len(set(holds.tolist())) == 1 else logistic(holds).predict_proba(found)[:, 1]
        )
    return probabilities
