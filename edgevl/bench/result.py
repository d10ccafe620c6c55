"""What a measurement found: every round's value of every stage, with the machine and the model; as JSON and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgevl.errors import InputError
from edgevl.machine import Machine

FORMAT = 2
READABLE = (1, 2)
CONTEXTS = (128, 1024, 4096)
"""How many tokens are held where decoding is timed, as far as the model's context goes."""
Size = tuple[int, int]
Place = tuple[Size | None, int]
"""A picture's (height, width), or None for any, and a number of threads."""


@dataclass(frozen=True)
class Stage:
    """A figure that is measured: how it is kept and how it is shown.

    `factor` turns a value (seconds, bytes, tokens per second) into `unit`; `rising` says what more of it is.
    """

    key: str
    title: str
    unit: str
    factor: float
    rising: Literal["slower", "faster", "more"]


def pixels(size: Size | None) -> str:
    """Return a (height, width) as people write it: width first. None is any."""
    return "any picture" if size is None else f"{size[1]}x{size[0]}"


def threads_of(n: int) -> str:
    """Return a number of threads in words."""
    return "1 thread" if n == 1 else f"{n} threads"


def context_key(n_tokens: int) -> str:
    """Return the key of the stage that is decoding with `n_tokens` held."""
    return f"decode_{n_tokens}_tokens_per_s"


def title(key: str) -> str:
    """Return what people call the stage `key`, also one that is not measured any more."""
    return FORMER.get(key) or next(stage.title for stage in STAGES if stage.key == key)


STAGES = (
    Stage("read_s", "read", "ms", 1e3, "slower"),
    Stage("tile_s", "cut into tiles", "ms", 1e3, "slower"),
    Stage("encode_s", "encode, a tile alone", "ms", 1e3, "slower"),
    Stage("encode_at_once_s", "encode, per tile side by side", "ms", 1e3, "slower"),
    Stage("prefill_tokens_per_s", "prefill", "tokens/s", 1.0, "faster"),
    Stage("first_token_s", "first token", "ms", 1e3, "slower"),
    Stage("decode_tokens_per_s", "decode", "tokens/s", 1.0, "faster"),
    *(Stage(context_key(n), f"decode at {n:,} tokens", "tokens/s", 1.0, "faster") for n in CONTEXTS),
    Stage("cold_start_s", "cold start", "ms", 1e3, "slower"),
    Stage("peak_memory_bytes", "peak memory", "MB", 1e-6, "more"),
)
_LEAST, _MOST = 1e-12, 1e18
"""No second, byte or token a second that is measured is further from 1; numbers that are cannot be calculated with."""
FORMER = {
    "cold_s": "cold start, graphs compiled anew",
    "peak_bytes": "peak memory, graphs compiled anew",
}
"""What results of format 1 hold that is not measured any more, and what it was."""


@dataclass(frozen=True)
class Row:
    """One size with one number of threads: the picture's (height, width), its tiles and prompt, and every value.

    `values` has a stage's key and what each round found, in order; a stage that was not measured is not in it.
    What does not depend on a picture has a row of its own, whose size is None and whose counts are 0.
    """

    size: Size | None
    threads: int
    n_tiles: int
    n_tokens: int
    values: dict[str, list[float]]

    @property
    def place(self) -> Place:
        """What two rows must share to be compared."""
        return self.size, self.threads


@dataclass(frozen=True)
class Result:
    """A whole measurement. `model_id` is a digest of the model's files; `created` is UTC, ISO 8601.

    `yardstick_s` has the seconds of one fixed computation in each round, which no version of edgevl changes.
    `n_context` is how many tokens the model can hold; None in a result of format 1.
    """

    created: str
    machine: Machine
    model: str
    model_id: str
    picture: str
    rounds: int
    yardstick_s: list[float]
    rows: list[Row]
    n_context: int | None = None

    @property
    def left_out(self) -> list[int]:
        """Which of `CONTEXTS` are longer than the model's."""
        return [n for n in CONTEXTS if self.n_context is not None and n > self.n_context]

    def to_json(self) -> str:
        """Return the text of the JSON document."""
        return json.dumps({"edgevl_bench": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    low: float
    median: float
    high: float


def spread(values: list[float]) -> Spread:
    """Return the median and the quartiles of at least one value."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return Spread(float(low), float(median), float(high))


def load(path: Path) -> Result:
    """Read what `Result.to_json` wrote. Raises InputError, one line that names the file and what is wrong in it."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); give what `edgevl bench --json` wrote") from error
    if not isinstance(raw, dict) or "edgevl_bench" not in raw:
        raise InputError(f"{path}: is not a result of edgevl bench; give what `edgevl bench --json` wrote")
    if raw["edgevl_bench"] not in READABLE:
        raise InputError(f"{path}: is of format {raw['edgevl_bench']!r}, this edgevl reads {FORMAT}; measure again")
    try:
        return _result(raw)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: is a damaged result of edgevl bench ({what}); measure again") from error


def _result(raw: Mapping[str, Any]) -> Result:
    machine = raw["machine"]
    return Result(
        created=_text(raw["created"]),
        machine=Machine(
            cpu=_text(machine["cpu"]),
            features=None if machine["features"] is None else tuple(map(_text, machine["features"])),
            n_cores=None if machine["n_cores"] is None else _count(machine["n_cores"]),
            n_usable=_count(machine["n_usable"]),
            memory_bytes=None if machine["memory_bytes"] is None else _count(machine["memory_bytes"]),
            system=_text(machine["system"]),
            python=_text(machine["python"]),
            versions={_text(name): _text(value) for name, value in machine["versions"].items()},
            n_usable_cores=None if (cores := machine.get("n_usable_cores")) is None else _count(cores),
        ),
        model=_text(raw["model"]),
        model_id=_text(raw["model_id"]),
        picture=_text(raw["picture"]),
        rounds=_count(raw["rounds"]),
        yardstick_s=_values(raw["yardstick_s"]),
        rows=[_row(row) for row in raw["rows"]],
        n_context=None if raw.get("n_context") is None else _count(raw["n_context"]),
    )


def _row(raw: Mapping[str, Any]) -> Row:
    known = {stage.key for stage in STAGES} | FORMER.keys()
    return Row(
        size=None if raw["size"] is None else _size(raw["size"]),
        threads=_count(raw["threads"]),
        n_tiles=_count(raw["n_tiles"]),
        n_tokens=_count(raw["n_tokens"]),
        values={key: _values(values) for key, values in raw["values"].items() if key in known},
    )


def _size(raw: Any) -> Size:
    height, width = map(_count, raw)
    return height, width


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} stands where text is expected")
    value.encode()  # half a surrogate pair is a ValueError here, and not when all is measured and the page written
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= sys.maxsize:
        raise TypeError(f"{str(value)[:40]!r} stands where a whole number is expected")
    return value


def _values(raw: object) -> list[float]:
    if not isinstance(raw, list) or not raw:
        raise TypeError(f"{str(raw)[:40]!r} stands where a list of numbers is expected")
    for value in raw:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not _LEAST < value < _MOST:
            raise TypeError(f"{str(value)[:40]!r} stands where a number above 0 is expected")
    return [float(value) for value in raw]
