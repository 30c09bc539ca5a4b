"""Scores in the order of the texts; a model evaluated on a file as on the split it was measured on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import trained_model
from tests.tiny import tiny_model
from training import evaluate


def test_scores_are_in_the_order_of_the_texts_and_do_not_depend_on_their_neighbours(tmp_path: Path) -> None:
    model = trained_model.load(tiny_model(tmp_path / "m"))
    texts = ["red " * (1 + 7 * number % 40) + "rose" for number in range(100)]
    found = evaluate.score(model.network, model.tokenizer, texts, 24)
    assert found.shape == (100, 3)
    assert found.dtype == np.float32
    for number in (0, 17, 99):
        alone = model.tokenizer(texts[number], truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            expected = model.network(alone["input_ids"], alone["attention_mask"])[0].numpy()
        assert found[number] == pytest.approx(expected, abs=1e-5)
