"""The results file: every answer as it is given, so that a run that was ended goes on from there.

JSON Lines. A line of a run says what answered: model and digest of its files, what runs its parts, machine, versions,
settings. A line of an answer names its run, the item, and the digest of what was asked. A line with the figures and the
digest of the data set ends every evaluation. One file may hold several models; the same question is not asked again of
the same model with the same settings, engines, versions and processor. An item that asks what another one asked, or
whose right answers have changed, gets a line of its own with the same answer: of several lines of a run, an item and a
question, the last one counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from edgevl.errors import InputError
from edgevl.machine import Machine
from edgevl.model.manifest import Manifest

FORMAT = 2
"""In format 1, digests depended on where pictures lie: its answers would all be asked again."""
_BEGINNING = f'{{"edgevl_eval": {FORMAT}, "run": '.encode()
"""What a results file begins with."""


@dataclass(frozen=True)
class Run:
    """What answers: a model, by its name, precision and the digest of its files, on a machine, with settings.

    `engines` are what runs its "vision" and its "decoder".
    """

    model: str
    model_id: str
    precision: str
    machine: Machine
    settings: dict[str, Any]
    engines: dict[str, str]

    @property
    def key(self) -> str:
        """A digest of what answers depend on; the date and a machine's memory are not part of it."""
        content = [self.model_id, self.machine.cpu, self.machine.versions, self.settings, self.engines]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def precision_of(manifest: Manifest) -> str:
    """Return a model's precisions in words."""
    return f"vision {manifest.vision.precision}, decoder {manifest.decoder.precision}"


class Results:
    """A results file that is open for more. Close it, or use it in a `with` block."""

    def __init__(self, path: Path) -> None:
        """Read what is there and go on behind it; a last line that was cut off is dropped, and asked again.

        Raises InputError, naming the line, for a file that is not one of these or cannot be written.
        """
        self.path = path
        self._answers: dict[tuple[str, str], dict[str, Any]] = {}
        self._lines: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._runs: set[str] = set()
        try:
            check_is_file(path)
            self._read()
            self._file: IO[str] = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --output") from error

    def answer(self, run: Run, digest: str) -> dict[str, Any] | None:
        """Return what the file holds of a run's answer to what `digest` names."""
        return self._answers.get((run.key, digest))

    def begin(self, run: Run, **facts: Any) -> None:
        """Note what answers from here on, unless the file knows it; `facts` are told along."""
        if run.key not in self._runs:
            self._runs.add(run.key)
            self._write({"edgevl_eval": FORMAT, "run": run.key, **asdict(run), **facts})

    def add(self, run: Run, digest: str, values: dict[str, Any]) -> None:
        """Keep an answer to the item `values["id"]`, unless its line is there; it is on disk when this returns."""
        line = {"run": run.key, "asked": digest, **values}
        if self._lines.get((run.key, digest, values["id"])) != line:
            self._keep(line)
            self._write(line)

    def end(self, summary: dict[str, Any]) -> None:
        """Keep the figures."""
        self._write({"summary": summary})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError) if error is not None else nullcontext():  # which says more than a full disk at the end
            self.close()

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise InputError(f"{self.path}: {what}; make room, then the same command goes on from there") from error

    def _keep(self, line: dict[str, Any]) -> None:
        self._answers[line["run"], line["asked"]] = self._lines[line["run"], line["asked"], line["id"]] = line

    def _read(self) -> None:
        if not self.path.exists():
            return
        whole, line = 0, b""  # bytes up to the end of the last line that is whole
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    self._take_line(number, line)
                    whole += len(line)
        begins = not whole and line[: len(_BEGINNING)] == _BEGINNING[: len(line)]  # a full disk may cut the first line
        if not self._runs and not begins:
            raise InputError(f"{self.path}: is no results file; choose another --output")
        if not line.endswith(b"\n"):
            os.truncate(self.path, whole)

    def _take_line(self, number: int, content: bytes) -> None:
        where = f"{self.path}, line {number}"
        try:
            line = json.loads(content)
            if line.get("edgevl_eval", FORMAT) != FORMAT:
                raise InputError(
                    f"{where}: is of format {line['edgevl_eval']!r}, this edgevl goes on with {FORMAT} only; "
                    "choose another --output"
                )
            self._take(line)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{where}: is no line of a results file ({what}); choose another --output") from error

    def _take(self, line: dict[str, Any]) -> None:
        if "edgevl_eval" in line:
            self._runs.add(line["run"])
        elif "summary" not in line:
            _check(line)
            self._keep(line)


def _check(line: dict[str, Any]) -> None:
    """Raise TypeError or KeyError where a line of an answer holds something else than what is written."""
    texts = {name: line.get(name, "") for name in ("finish_reason", "refused")}
    for name, text in {"answer": line["answer"], **texts}.items():
        if not isinstance(text, str):
            raise TypeError(f"{name!r} is no text")
    images = line.get("images", [])
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise TypeError("'images' is no list of texts")


def check_is_file(path: Path) -> None:
    """Raise InputError where something lies that is no file: a device may never end, and a pipe keeps nothing."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no file but a folder, a pipe or a device; choose another --output")
