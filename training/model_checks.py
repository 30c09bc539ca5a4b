"""Checks of a model's decisions and scores.

The first line of a docstring says what the check looks for, and the rest what to do about it.
"""

from collections.abc import Iterator

import numpy as np

from models.decision import Floats, thresholds_of
from models.labels import Task
from training import calibrate
from training.evidence import Evidence, Found
from training.thresholds import Objective

EDGE = 0.02  # distance of a threshold from 0 and 1 that nobody would choose by hand
WORSE = 0.02  # F1 that thresholds may lose on other documents
BIASED = 1.5  # ratio of predicted labels to true ones, either way, that makes a poor count
LEAST_ERROR = 0.05  # calibration error that matters
SIMULATED = 100  # data sets that tell which calibration error chance gives
OVERFITTED = 1.1  # ratio of the last validation loss to the lowest one
GAIN = 0.01  # metric that one more epoch may bring


def never_predicted(evidence: Evidence) -> Iterator[Found]:
    """Documents have the label, and none was given it.

    Lower its threshold or `decision.abstain_below`, or label more documents that have it.
    """
    labels = evidence.main.metrics["labels"]
    if never := [name for name, values in labels.items() if values["support"] and not values["predicted"]]:
        yield f"{{labels}}: given to no document of {evidence.main.split}, although some have it", never


def biased_count(evidence: Evidence) -> Iterator[Found]:
    """The label is given much more often than it applies, or much less often, by more than chance.

    Do not publish counts of predicted labels: correct them by a hand-labelled sample.
    """
    biased = []
    for name, values in evidence.main.metrics["labels"].items():
        given, due = values["predicted"], values["support"]
        far = given and due and max(given / due, due / given) > BIASED
        if far and abs(given - due) > 2 * np.sqrt(given + due):
            biased.append(name)
    if biased:
        split = evidence.main.split
        yield f"{{labels}}: over {BIASED} times as many documents of {split} got it as have it, or the reverse", biased


def no_better_than_chance(evidence: Evidence) -> Iterator[Found]:
    """The scores of a label do not order documents better than chance.

    The 99 % interval of ROC AUC (Hanley and McNeil, 1982) reaches 0.5. Look for wrong labels, or label more documents.
    """
    unlearnt = []
    known = evidence.main.examples.known.sum(axis=0)
    for total, (name, values) in zip(known.tolist(), evidence.main.metrics["labels"].items(), strict=True):
        area, positives = values["roc_auc"], values["support"]
        if area is not None and area - 2.576 * _error_of_area(area, positives, total - positives) < 0.5:
            unlearnt.append(name)
    if unlearnt:
        yield "{labels}: the scores cannot be told from guessing", unlearnt


def _error_of_area(area: float, positives: int, negatives: int) -> float:
    """Return the standard error of an ROC AUC."""
    both_above, both_below = area / (2 - area), 2 * area * area / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (both_above - area**2) + (negatives - 1) * (both_below - area**2)
    return float(np.sqrt(max(spread, 0.0) / (positives * negatives)))


def threshold_at_edge(evidence: Evidence) -> Iterator[Found]:
    """A threshold is next to 0 or 1.

    Look at the label's panel of precision and recall in `report.html`, and set `decision.threshold` if it is poor.
    """
    thresholds = thresholds_of(evidence.manifest.labels, evidence.manifest.decision)
    if edge := [name for name, value in thresholds.items() if not EDGE <= value <= 1 - EDGE]:
        yield f"{{labels}}: the threshold is closer than {EDGE} to 0 or 1", edge


def threshold_does_not_hold(evidence: Evidence) -> Iterator[Found]:
    """A threshold that was fitted to validation has a lower F1 on test than 0.5 has.

    Set a larger share of the data aside for validation, or raise `decision.fewest_positives`.
    """
    half = evidence.main.metrics.get("at_half")
    if half is None or evidence.main is evidence.validation:
        return
    if evidence.decision_config.objective not in ("macro_f1", "best_f1"):
        return
    metrics, split = evidence.main.metrics, evidence.main.split
    if evidence.main.labels.task is Task.BINARY and evidence.decision_config.objective == "macro_f1":
        if metrics["macro_f1"] < half["macro_f1"] - WORSE:
            yield f"macro-F1 on {split} is lower by more than {WORSE} than at 0.5", []
        return
    decided = thresholds_of(evidence.manifest.labels, evidence.manifest.decision)
    if worse := [name for name in decided if metrics["labels"][name]["f1"] < half["labels"][name]["f1"] - WORSE]:
        yield f"{{labels}}: F1 on {split} is lower by more than {WORSE} than at 0.5", worse


def bound_missed(evidence: Evidence) -> Iterator[Found]:
    """The precision or recall that `decision.objective` asks for was not reached.

    Ask for a little more than you need, or set a larger share of the data aside for validation.
    """
    objective = Objective.parse(evidence.decision_config.objective)
    if objective.kind not in ("precision", "recall"):
        return
    decided = thresholds_of(evidence.manifest.labels, evidence.manifest.decision)
    labels = {name: evidence.main.metrics["labels"][name] for name in decided}
    if missed := [name for name, of in labels.items() if of["support"] and of[objective.kind] < objective.bound]:
        yield f"{{labels}}: {objective.kind} on {evidence.main.split} is below {objective.bound}", missed


def miscalibrated(evidence: Evidence) -> Iterator[Found]:
    """Scores differ from frequencies by more than chance gives.

    Fit the decision to documents like those of the corpus, with `labelbeam decide`.
    """
    chance = np.random.default_rng(0)
    probs, targets = evidence.main.probs, evidence.main.examples.targets
    wrong = []
    for i, (name, values) in enumerate(evidence.main.metrics["labels"].items()):
        error = values.get("calibration_error")
        if error and error > LEAST_ERROR:
            scores = probs[~np.isnan(targets[:, i]), i]
            if error > np.percentile(_errors_by_chance(scores, chance), 99):
                wrong.append(name)
    if wrong:
        yield f"{{labels}}: the calibration error is above {LEAST_ERROR}, and more than chance gives", wrong


def _errors_by_chance(scores: Floats, chance: np.random.Generator) -> list[float]:
    """Return the calibration errors (SIMULATED,) of data sets in which the scores are right."""
    drawn = (chance.random(len(scores)) < scores for _ in range(SIMULATED))
    found = (calibrate.calibration_error_of_label(scores, truth.astype(np.float64)) for truth in drawn)
    return [error for error in found if error is not None]


def calibration_at_bound(evidence: Evidence) -> Iterator[Found]:
    """The temperature or the bias of a label is as far as it may go.

    Read its scores as an order, not as probabilities.
    """
    if labels := calibrate.at_bounds(evidence.manifest.labels, evidence.manifest.decision):
        yield "{labels}: the calibration is at its bound, because validation tells too little or is too easy", labels


def falls_on_test(evidence: Evidence) -> Iterator[Found]:
    """Validation is better than test by more than chance gives, so that it was chosen on too often, or test differs.

    Report test alone.
    """
    validation, main = evidence.validation, evidence.main
    if validation is None or validation is main or main.metrics["labels_without_documents"]:
        return
    (low, _), (_, high) = (one.metrics["intervals"]["macro_f1"] for one in (validation, main))
    if low > high:
        values = validation.metrics["macro_f1"], main.metrics["macro_f1"]
        yield f"macro-F1 is {values[0]:.3f} on validation and {values[1]:.3f} on {main.split}", []


def overfitted(evidence: Evidence) -> Iterator[Found]:
    """The validation loss rose again after its lowest value.

    Train for fewer epochs, at a lower rate, or with more documents. The weights of the best evaluation were kept.
    """
    losses = [entry["eval_loss"] for entry in evidence.history]
    if losses and losses[-1] > OVERFITTED * min(losses):
        yield f"the validation loss rose from {min(losses):.3f} to {losses[-1]:.3f} by the end of the training", []


def still_learning(evidence: Evidence) -> Iterator[Found]:
    """The last evaluation was the best one by far, so that the model had not learnt all it could.

    Raise `training.epochs`.
    """
    metric = evidence.config.get("training", {}).get("metric", "macro_f1")
    values = [entry[f"eval_{metric}"] for entry in evidence.history if f"eval_{metric}" in entry]
    if metric == "loss" or len(values) < 2:
        return
    *former, last = values
    if last > max(former) + GAIN:
        yield f"{metric} on validation rose from {max(former):.3f} to {last:.3f} at the last evaluation", []
