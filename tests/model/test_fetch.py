"""Files of a hub on this machine arrive whole and checked or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from edgevl.errors import ChecksumMismatch, DownloadError, EdgeVLError
from edgevl.model import hub as models
from tests.hub_server import Hub, serving

REPO = "somebody/small"
OLD, NEW = "a" * 40, "b" * 40
LARGE = bytes(range(256)) * 800  # 204,800 bytes, more than what is sent in one piece
FILES = {"large.bin": LARGE, "sub/small.json": b"{}", "empty": b""}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(monkeypatch) as server:
        server.add(REPO, FILES, OLD)
        yield server


def fetch(folder: Path, *names: str, told: list[tuple[str, float]] | None = None, **options: Any) -> models.Repository:
    source, steps = models.look_up(REPO), [] if told is None else told
    models.fetch(source, names or list(FILES), folder, lambda *step: steps.append(step), **options)
    return source


def failing(folder: Path, *names: str, kind: type[EdgeVLError] = DownloadError, **options: Any) -> str:
    """Return the one line with which fetching fails."""
    with pytest.raises(kind) as caught:
        fetch(folder, *names, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def looking_up(repo: str, revision: str | None = None) -> str:
    """Return the one line with which looking up fails."""
    with pytest.raises(DownloadError) as caught:
        models.look_up(repo, revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestLookUp:
    def test_the_newest_revision_or_the_one_that_is_asked_for(self, hub: Hub) -> None:
        hub.add(REPO, {"new.bin": b"1"}, NEW)
        assert [file.path for file in models.look_up(REPO).files] == ["new.bin"]
        assert models.look_up(REPO).revision == NEW
        old = models.look_up(REPO, OLD)
        assert (old.revision, [file.path for file in old.files]) == (OLD, sorted(FILES))
        assert [file.n_bytes for file in old.files] == [0, len(LARGE), 2]

    def test_a_repository_that_is_not_there(self, hub: Hub) -> None:
        assert looking_up("somebody/none") == (
            f"somebody/none: there is no {hub.url}/somebody/none; if it is private, run: hf auth login"
        )

    def test_a_revision_that_is_not_there(self, hub: Hub) -> None:
        assert looking_up(REPO, NEW) == f"{REPO}: has no revision {NEW}; see {hub.url}/{REPO}"

    @pytest.mark.parametrize("status", [403, 500, 503])
    def test_a_hub_that_refuses(self, hub: Hub, status: int) -> None:
        hub.status = status
        told = looking_up(REPO)
        assert f"({status}); run" in told
        assert ("hf auth login" in told) == (status == 403)

    def test_no_network(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        told = looking_up(REPO)
        assert told.startswith(f"{REPO}: {url}/{REPO} cannot be reached (")
        assert told.endswith("); the same command goes on where it was")

    @pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "c:evil", "a\\evil", ""])
    def test_a_path_that_leads_outside(self, hub: Hub, path: str) -> None:
        hub.add(REPO, {path: b"x"}, NEW)
        assert looking_up(REPO) == f"{REPO}: the hub lists {path!r} in a form that this version does not know"

    @pytest.mark.parametrize("repo", ["", "small", "a/b/c", "a b/c", "a/b?x"])
    def test_what_is_no_repository(self, repo: str) -> None:
        assert looking_up(repo) == f"{repo!r} is not the name of a repository, such as hf:owner/name"


class TestFetch:
    def test_every_file_arrives_as_it_is(self, hub: Hub, tmp_path: Path) -> None:
        told: list[tuple[str, float]] = []
        fetch(tmp_path, told=told)
        found = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in found} == FILES
        shares = [share for _, share in told]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0

    def test_what_is_there_is_not_fetched_again(self, hub: Hub, tmp_path: Path) -> None:
        fetch(tmp_path, "sub/small.json")
        fetch(tmp_path)
        assert [request.path for request in hub.requests] == ["sub/small.json", "large.bin"]

    def test_a_cut_connection_goes_on_by_itself(self, hub: Hub, tmp_path: Path) -> None:
        hub.cut["large.bin"] = [70_000, 1000]
        fetch(tmp_path)
        assert hub.fetched("large.bin") == [0, 70_000, 71_000]

    def test_one_that_brings_nothing_more_ends_it_and_the_next_try_goes_on(self, hub: Hub, tmp_path: Path) -> None:
        hub.cut["large.bin"] = [70_000, 0]
        told = failing(tmp_path)
        assert told.startswith(f"{REPO}: {hub.url}/{REPO} cannot be reached (")
        assert not (tmp_path / "large.bin").exists()
        fetch(tmp_path)
        assert hub.fetched("large.bin") == [0, 70_000, 70_000]

    def test_ctrl_c_leaves_what_has_arrived(self, hub: Hub, tmp_path: Path) -> None:
        def stop(path: str, share: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            models.fetch(models.look_up(REPO), ["large.bin"], tmp_path, stop)
        assert not (tmp_path / "large.bin").exists()
        n_arrived = (tmp_path / "large.bin.part").stat().st_size
        assert n_arrived > 0
        fetch(tmp_path)
        assert hub.fetched("large.bin") == [0, n_arrived] if n_arrived < len(LARGE) else [0]

    def test_a_server_that_cannot_go_on_sends_it_all(self, hub: Hub, tmp_path: Path) -> None:
        hub.cut["large.bin"] = [70_000]
        hub.ignores_ranges = True
        fetch(tmp_path)
        assert hub.fetched("large.bin") == [0, 0]
        assert (tmp_path / "large.bin").read_bytes() == LARGE

    @pytest.mark.parametrize("path", ["large.bin", "sub/small.json"])
    def test_another_content(self, hub: Hub, tmp_path: Path, path: str) -> None:
        hub.damaged.add(path)
        assert failing(tmp_path, kind=ChecksumMismatch) == (
            f"{REPO}/{path}: arrived with another content than the hub names; run the same command again"
        )
        assert list((tmp_path / path).parent.glob(f"{Path(path).name}*")) == []
        hub.damaged.clear()
        fetch(tmp_path)
        assert hub.fetched(path) == [0, 0]

    def test_a_file_that_is_shorter_than_the_hub_says(self, hub: Hub, tmp_path: Path) -> None:
        source = models.look_up(REPO)
        hub.repos[REPO][OLD] = {**FILES, "large.bin": LARGE[:3000]}
        with pytest.raises(DownloadError) as caught:
            models.fetch(source, ["large.bin"], tmp_path, lambda path, share: None)
        told = f"{REPO}/large.bin: ends at 3000 of 204800 bytes; run the same command again later"
        assert str(caught.value) == told

    def test_a_file_that_is_longer_than_the_hub_says(self, hub: Hub, tmp_path: Path) -> None:
        source = models.look_up(REPO)
        hub.repos[REPO][OLD] = {**FILES, "large.bin": LARGE * 50}
        with pytest.raises(ChecksumMismatch):
            models.fetch(source, ["large.bin"], tmp_path, lambda path, share: None)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_not_there_any_more(self, hub: Hub, tmp_path: Path) -> None:
        hub.gone.add("large.bin")
        assert failing(tmp_path) == f"{REPO}: a file is not there any more (404); see {hub.url}/{REPO}"

    def test_a_gated_repository(self, hub: Hub, tmp_path: Path) -> None:
        hub.gated.add(REPO)
        assert failing(tmp_path) == (
            f"{REPO}: its owner gives it to those who asked; ask on {hub.url}/{REPO}, then run: hf auth login"
        )

    def test_no_room(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fetch(tmp_path, "sub/small.json")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, len(LARGE)))
        assert failing(tmp_path, spare_bytes=1) == (
            f"{tmp_path}: has 0.0 GB free, {REPO} needs 0.0 GB more; "
            "free some space or let EDGEVL_MODELS_DIR name another place"
        )
        assert hub.fetched("large.bin") == []
        fetch(tmp_path)

    def test_a_disk_that_is_full(self, hub: Hub, tmp_path: Path) -> None:
        """/dev/full takes no byte."""
        full = Path("/dev/full")
        if not full.exists():
            pytest.skip("this system has no /dev/full")
        (tmp_path / "large.bin.part").symlink_to(full)
        assert failing(tmp_path, "large.bin").endswith("the disk is full; free some space, then go on")

    def test_the_token_goes_to_the_hub_alone(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        fetch(tmp_path)
        assert [(request.path, request.with_token) for request in hub.requests] == [
            ("large.bin", False),  # which lies elsewhere
            ("sub/small.json", True),
        ]
