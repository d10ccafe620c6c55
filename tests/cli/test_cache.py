from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import edgevl
from edgevl.cli import run
from edgevl.store.disk import VERSION

SHAPES = Path(__file__).parents[2] / "models" / "samples" / "shapes.png"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store's folder for this test, empty."""
    monkeypatch.setenv("EDGEVL_STORE_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def test_an_empty_store_is_shown_and_cleared(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache"]) == 0
    assert capsys.readouterr().out == (
        f"{store}: at most 2000.0 MB\n      0  image features of tiles, 0.0 MB\n      0  KV caches of images, 0.0 MB\n"
        "      0  compiled graphs, 0.0 MB\n"
    )
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"{store}: 0.0 MB freed\n"
    assert not store.exists()


def test_what_an_answer_stored_is_shown_and_cleared(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with edgevl.load() as vlm:
        vlm.ask(SHAPES, "what's here?", max_tokens=1)
    assert run(["cache", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["folder"], shown["max_bytes"]) == (str(store), 2_000_000_000)
    assert (shown["tiles"]["n_entries"], shown["prefixes"]["n_entries"]) == (5, 1)
    assert shown["prefixes"]["n_bytes"] > 100_000
    assert run(["cache", "clear"]) == 0
    assert not list((store / VERSION).rglob("*.bin"))


def test_clear_prints_no_document(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / VERSION / "tiles").mkdir(parents=True)
    entry = store / VERSION / "tiles" / f"{'0' * 64}.bin"
    entry.write_bytes(b"x")
    assert run(["cache", "--json", "clear"]) == 2
    assert "--json is for `edgevl cache` alone" in capsys.readouterr().err
    assert entry.exists()


def test_what_other_versions_stored_is_shown_and_cleared(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = store / "v0" / "tiles" / f"{'0' * 64}.bin"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"x" * 1_500_000)
    assert run(["cache"]) == 0
    assert capsys.readouterr().out.endswith("\n      1  entries of other versions of edgevl, 1.5 MB\n")
    assert run(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["other_versions"] == {"n_entries": 1, "n_bytes": 1_500_000}
    assert run(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"{store}: 1.5 MB freed\n"
    assert not other.exists()


def test_no_store_writes_nothing(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "--no-store", str(SHAPES), "what's here?"]) == 0
    assert not store.exists()
    assert run(["ask", str(SHAPES), "what's here?"]) == 0
    assert store.exists()
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_what_cannot_be_deleted_or_looked_into_is_an_error(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with edgevl.load() as vlm:
        vlm.ask(SHAPES, "what's here?", max_tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        assert run(["cache", "clear"]) == 1
    assert re.search(r"store: [0-9]+ entries could not be deleted; change their permissions$", capsys.readouterr().err)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != store / VERSION)
        for command in (["cache"], ["cache", "clear"]):
            assert run(command) == 1
            assert "v1: may not be looked into; change its permissions" in capsys.readouterr().err


def test_a_wrong_size_limit_is_one_line(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEVL_STORE_MB", "-1")
    assert run(["cache"]) == 1
    assert capsys.readouterr().err == "error: EDGEVL_STORE_MB is '-1'; it must be a whole number of megabytes\n"
    monkeypatch.setenv("EDGEVL_STORE_MB", "9" * 5000)
    assert run(["cache"]) == 1
    assert "it must be a whole number of megabytes" in capsys.readouterr().err
