"""The index finds the same texts as a comparison of all pairs."""

import random

import pytest

from training import near_duplicates


def jaccard(one: str, other: str) -> float:
    first, second = (set(near_duplicates.shingles(text).tolist()) for text in (one, other))
    return len(first & second) / len(first | second)


def test_shingles_are_distinct_triples_of_words_whatever_case_and_punctuation() -> None:
    found = near_duplicates.shingles("The sky is blue. The sky, is blue!")
    assert len(found) == 4  # the sky is, sky is blue, is blue the, blue the sky
    assert found.tolist() == sorted(set(found.tolist()))
    assert near_duplicates.shingles("THE SKY is--blue the Sky is (blue)").tolist() == found.tolist()
    assert len(near_duplicates.shingles("two words")) == len(near_duplicates.shingles("")) == 1


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_nothing_is_missed_and_nothing_is_made_up(threshold: float) -> None:
    chance = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    texts = [" ".join(chance.choices(words, k=chance.randrange(1, 25))) for _ in range(150)]
    texts += [" ".join(word if chance.random() > 0.05 else "x" for word in text.split()) for text in texts]
    index = near_duplicates.Index(texts[:150], threshold)
    for text in texts[150:]:
        expected = max((jaccard(text, other), -place) for place, other in enumerate(texts[:150]))
        found = index.nearest(text)
        if expected[0] < threshold:
            assert found is None
        else:
            assert found is not None
            assert found[0] == -expected[1]
            assert found[1] == pytest.approx(expected[0])


def test_short_texts_match_only_as_a_whole() -> None:
    index = near_duplicates.Index(["lol", "so good"], 0.8)
    assert index.nearest("LOL!") == (0, 1.0)
    assert index.nearest("so bad") is None
    assert near_duplicates.Index([], 0.8).nearest("lol") is None
