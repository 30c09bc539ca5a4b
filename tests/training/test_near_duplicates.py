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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "我们提出了一种新的方法来识别讽刺语言并且公开了代码",
            "我们提出了一种新的方法来识别讽刺语言并公开了代码",
        ),
        ("ผู้คนจำนวนมากสูญเสียงานของพวกเขาในปีนี้เพราะวิกฤต", "ผู้คนจำนวนมากสูญเสียงานของพวกเขาในปีนี้เพราะวิกฤติ"),
        ("この論文では皮肉を検出する新しい手法を提案する", "この論文では皮肉を検出する新しい手法を提案します"),
    ],
)
def test_scripts_without_spaces_are_compared_by_characters(one: str, other: str) -> None:
    index = near_duplicates.Index([other, other[::-1]], 0.7)
    found = index.nearest(one)
    assert found is not None
    assert found[0] == 0
    assert 0.7 < found[1] < 1
    assert len(near_duplicates.shingles("我们用BERT模型")) == 4  # 我 们 用 bert 模 型
