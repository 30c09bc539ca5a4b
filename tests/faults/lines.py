"""Generates faulty lines from a seed: random bytes, broken and deep JSON, huge numbers, strange Unicode."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

WORDS = ("red", "green", "blue", "sky", "rose", "the", "of", "is")
STRANGE = (
    *("\x00", "\x1b[31m", "\u2028", "\u202e", "\ufeff", "\ufffd", "\ufffe", "\U0010ffff", "\ud800", "\udfff", "\ue000"),
    *("e\u0301" * 3, "a" + "\u0300" * 50, "\u1100\u1161\u11a8", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u00a0"),
    *("ﷺ", "İ", "ß", "&#0;", "&#x110000;", "&amp;amp;", "$$$", "\\(", "https://", "a@b", "@@", "\t\r\x0b\x0c\x85"),
)
NUMBERS = ("0", "-0", "1e999", "-1e-999", "9" * 19, "9" * 400, "9" * 5000, "0.1e", "1E+2", "01", "NaN", "-Infinity")


def generate(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` lines without newlines; about half of them can be labelled."""
    chance = random.Random(seed)
    kinds: list[Callable[[random.Random, int], bytes]] = [good, good, good, strange, mutated, noise, deep, numbers, odd]
    for number in range(count):
        yield chance.choice(kinds)(chance, number).replace(b"\n", b" ")


def good(chance: random.Random, number: int) -> bytes:
    """Return a correct document, mostly short, with up to a few thousand words."""
    words = chance.choices(WORDS, k=int(min(chance.paretovariate(0.8) * 3, 3_000)))
    return _line({"id": number, "text": " ".join(words), "extra": chance.random()})


def strange(chance: random.Random, number: int) -> bytes:
    """Return a document with strange characters in its text, id, keys and kept field."""
    text = "".join(chance.choices([*WORDS, *STRANGE, chr(chance.randrange(1, 0xD800))], k=chance.randrange(1, 30)))
    escaped = chance.random() < 0.7  # some programs write such characters without escapes
    row = {"id": f"{number}{chance.choice(STRANGE)}", "text": text, chance.choice(STRANGE): 1, "extra": {text: [text]}}
    return json.dumps(row, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


def mutated(chance: random.Random, number: int) -> bytes:
    """Return a good document with bytes changed, lost or added."""
    line = bytearray(good(chance, number))
    for _ in range(chance.randrange(1, 5)):
        position = chance.randrange(len(line))
        line[position : position + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        line = line or bytearray(b"{")
    return bytes(line)


def noise(chance: random.Random, number: int) -> bytes:
    """Return random bytes."""
    return chance.randbytes(int(min(chance.paretovariate(0.7) * 4, 20_000)))


def deep(chance: random.Random, number: int) -> bytes:
    """Return deeply nested JSON, closed or not: in the text, a kept field or the id, or as the whole line."""
    depth = int(chance.choice((10, 200, 254, 300, 1_000, 1_100) * 9 + (100_000,)) * chance.uniform(0.9, 1.1))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    value = opening * depth + b"1" + closing * (depth if chance.random() < 0.8 else depth - 1)
    name = chance.choice((b"text", b"extra", b"id"))
    return value if chance.random() < 0.2 else b'{"id": "%d", "text": "deep", "%b": %b}' % (number, name, value)


def numbers(chance: random.Random, number: int) -> bytes:
    """Return a document with a number at or beyond a limit."""
    name, value = chance.choice(("id", "text", "extra")), chance.choice(NUMBERS)
    return f'{{"id": "{number}", "text": "a number", "{name}": {value}}}'.encode()


def odd(chance: random.Random, number: int) -> bytes:
    """Return JSON that is not a document, or a document with a missing or wrong field."""
    rows: list[Any] = [[], 1, None, "text", True, {}, {"id": "x"}, {"text": "no id"}, {"id": "", "text": "x"}]
    rows += [{"id": number, "text": value} for value in (None, "", " \u00a0", 1, ["x"], {"a": 1})]
    identifiers: list[Any] = [None, False, 1.5, [1], {}]
    rows += [{"id": identifier, "text": "x"} for identifier in identifiers]
    return chance.choice(
        [*map(_line, rows), b"", b" \t", b"{}{}", b'{"id":1,"id":2,"text":"a","text":"b"}', b"\xef\xbb\xbf{}"]
    )


def _line(row: Any) -> bytes:
    return json.dumps(row).encode()
