"""Tests that an input is found by its literal name first, on disk and in Cloud Storage, and that folders are named."""

import os
from pathlib import Path

import pytest

from inference.corpus.files import find_file, find_files, read_bytes
from models.errors import UserError
from tests.inference.conftest import BUCKET, Remote, root_of

LITERAL = ("c[2].jsonl", "c*.jsonl", "c?.jsonl", "[!a].jsonl", "a b#1.jsonl")


@pytest.fixture(params=["disk", "cloud", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a folder with files whose names hold wildcards, beside files that these wildcards match."""
    names = (*LITERAL, "c2.jsonl", "cd.jsonl", "b.jsonl", "deeper/x.jsonl")
    if request.param == "disk":
        (tmp_path / "deeper").mkdir()
        for name in names:
            (tmp_path / name).write_text(name)
        return str(tmp_path)
    remote: Remote = request.getfixturevalue(request.param)
    for name in names:
        remote.upload(BUCKET, f"in/{name}", name.encode())
    return f"{root_of(remote)}/in"


def names_of(folder: str, *patterns: str) -> list[str]:
    files = find_files([f"{folder}/{pattern}" for pattern in patterns])
    assert [b"".join(read_bytes(file)).decode() for file in files] == [
        file.path.removeprefix(f"{folder}/") for file in files
    ]
    return [file.path.removeprefix(f"{folder}/") for file in files]


def test_an_argument_that_names_a_file_is_that_file_and_else_a_glob(folder: str) -> None:
    for name in LITERAL:
        assert names_of(folder, name) == [name]
    assert names_of(folder, "c[2d].jsonl") == ["c2.jsonl", "cd.jsonl"]
    assert names_of(folder, "c[2].jsonl", "?2.jsonl") == ["c2.jsonl", "c[2].jsonl"]
    assert find_file(f"{folder}/c[d].jsonl") is None


@pytest.mark.parametrize("name", ["", "/", "/deeper", "/deeper/"])
def test_a_folder_is_a_sentence_that_says_how_to_name_its_files(folder: str, name: str) -> None:
    with pytest.raises(UserError) as error:
        find_files([f"{folder}{name}"])
    path = f"{folder}{name}".rstrip("/")
    assert str(error.value) == (
        f"--input {folder}{name}: expected files, found a folder; name the files in it, such as '{path}/*.jsonl'."
    )


def test_a_folder_with_the_name_of_a_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(UserError, match="expected files, found a folder"):
        find_files([str(tmp_path / "a.jsonl")])


def test_a_file_with_several_names_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("june.jsonl", "may.jsonl"):
        (tmp_path / name).write_text(name)
    (tmp_path / "latest.jsonl").symlink_to("june.jsonl")
    assert [file.path for file in find_files(["*.jsonl"])] == ["june.jsonl", "may.jsonl"]
    names = ["june.jsonl", "./june.jsonl", str(tmp_path / "june.jsonl"), f"../{tmp_path.name}/*.jsonl"]
    assert [os.path.basename(file.path) for file in find_files(names)] == ["may.jsonl", "june.jsonl"]


def test_a_name_that_is_not_utf_8_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"n\xff.jsonl")
    path.write_text("")
    with pytest.raises(UserError, match="expected names in UTF-8, found '.*/n.udcff.jsonl'; rename it"):
        find_files([str(tmp_path / "*.jsonl")])
