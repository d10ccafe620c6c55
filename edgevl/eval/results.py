"""The results file: every answer as it is given, so that a run that was ended goes on from there.

JSON Lines. A line of a run says what answered: model and digest of its files, machine, versions, settings. A line of an
answer names its run, the item, and the digest of what was asked. A line with the figures ends every evaluation. One
file may hold several models; the same question is not asked again of the same model with the same settings, versions
and processor.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from edgevl.errors import InputError
from edgevl.machine import Machine
from edgevl.model.manifest import Manifest

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """What answers: a model, by its name, precision and the digest of its files, on a machine, with settings."""

    model: str
    model_id: str
    precision: str
    machine: Machine
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """A digest of what answers depend on; the date and a machine's memory are not part of it."""
        content = [self.model_id, self.machine.cpu, self.machine.versions, self.settings]
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
        self._runs: set[str] = set()
        try:
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
        """Keep an answer; it is on disk when this returns."""
        line = {"run": run.key, "asked": digest, **values}
        self._answers[run.key, digest] = line
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
        self.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
                raise InputError(
                    f"{self.path}, line {number}: is no line of a results file ({what}); choose another --output"
                ) from error
        if not self._runs and content:
            raise InputError(f"{self.path}: is no results file; choose another --output")
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)

    def _take(self, line: Any) -> None:
        if "edgevl_eval" in line:
            if line["edgevl_eval"] != FORMAT:
                raise ValueError(f"format {line['edgevl_eval']!r}, this edgevl reads {FORMAT}")
            self._runs.add(line["run"])
        elif "summary" not in line:
            if not isinstance(line["answer"], str):
                raise TypeError("'answer' is no text")
            self._answers[line["run"], line["asked"]] = line
