"""Defines the baseline: TF-IDF of words and word pairs, and a logistic regression for each label."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from models.decision import Decision, Floats, probabilities
from models.labels import LabelSchema, Task
from training import calibrate, metrics
from training.examples import Splits
from training.measurement import Measurement, measure_split

REGULARISATION = (1.0, 4.0, 16.0)  # C, chosen on validation


def run(splits: Splits, schema: LabelSchema) -> Measurement:
    """Fit on train, choose C and thresholds on validation as for the network, and measure on test."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    train = vectorizer.fit_transform(splits.train.texts)
    validation, test = vectorizer.transform(splits.validation.texts), vectorizer.transform(splits.test.texts)
    best: tuple[float, Decision, Floats] | None = None
    for strength in REGULARISATION:
        columns = range(len(schema.names)) if schema.task is Task.MULTI_LABEL else (1,)
        models = [LogisticRegression(C=strength, max_iter=1000).fit(train, splits.train.targets[:, i]) for i in columns]
        logits = [np.stack([m.decision_function(x) for m in models], axis=1) for x in (validation, test)]
        if schema.task is Task.BINARY:
            logits = [np.concatenate([np.zeros_like(found), found], axis=1) for found in logits]
        decision = calibrate.fit(logits[0], splits.validation.targets, schema)
        probs = probabilities(logits[0], schema.task, decision)
        found = metrics.measure(probs, splits.validation.targets, schema, decision)["macro_f1"]
        if best is None or found > best[0]:
            best = (found, decision, logits[1])
    assert best is not None
    return measure_split("test", splits.test, best[2], schema, best[1])
