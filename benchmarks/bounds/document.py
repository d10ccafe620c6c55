"""From what was measured to plain data, and from that to the table that the README shows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import report
from benchmarks.bounds import BF16, FLOAT32, INT8, READ, Figure, Needs, least_s, total
from benchmarks.bounds.peaks import best
from benchmarks.tables import _mark, _noise, _table

TITLES = ("figure", "needs at least", "at the peak", "takes", "of the peak", "kernels or parts (of the peak)")


def peaks_of(reached: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, Any]]:
    """Return for each peak the best way, what that reached a second, and what all ways did."""
    found = {}
    for peak, ways in reached.items():
        spreads = {name: _spread(values) for name, values in ways.items()}
        by = best(ways)
        found[peak] = {"by": by, "per_s": spreads[by], "ways": spreads}
    return found


def figure_of(figure: Figure, peaks: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a figure as plain data, with what it needs over the peaks and its share of them."""
    reached = {peak: found["per_s"]["median"] for peak, found in peaks.items()}
    kinds = {
        name: {"seconds": _spread(kind.seconds), **_bound(kind.needs, kind.seconds, reached)}
        for name, kind in figure.kinds.items()
    }
    return {
        "what": figure.what,
        "by": figure.by,
        "seconds": _spread(figure.seconds),
        **_bound(figure.needs, figure.seconds, reached),
        "kinds_by": figure.kinds_by,
        "kinds": kinds,
    }


def _bound(needs: Needs, seconds: Sequence[float], reached: Mapping[str, float]) -> dict[str, Any]:
    if not needs:
        return {"needs": {}, "least_s": None, "share": None}
    least, taken = least_s(needs, reached), statistics.median(seconds)
    return {"needs": dict(needs), "least_s": least, "share": least / taken if taken else None}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return report._spread([float(f"{value:.6g}") for value in values])


def section(found: dict[str, Any]) -> str:
    """Return what a profile found, for the README: the machine's peaks, and a row or two for each figure."""
    about, settings = found["machine"], found["settings"]
    cores = f"{about['cores']} cores{' kept awake' if settings['awake'] else ''}"
    head = (
        f"{about['cpu']}, {cores}, {settings['threads']} threads; shapes {found['model']}; medians; "
        f"commit `{found['commit']}`. Peaks: {_peaks(found['peaks'])}.\n\n"
    )
    table = _table(TITLES, [row for figure in found["figures"] for row in _rows(figure)])
    notes = "".join(f"- {note}\n" for note in _noise(found, [head, table]))
    return head + table + (f"\n{notes}" if notes else "")


def _peaks(peaks: Mapping[str, dict[str, Any]]) -> str:
    """Return the peaks in words: gigabytes, or billions of operations, a second."""
    said = []
    for peak, found in peaks.items():
        unit = "GB/s read" if peak == READ else f"G/s {peak}"
        low, middle, high = (found["per_s"][key] * 1e-9 for key in ("lowest", "median", "highest"))
        n_digits = 1 if peak == READ else 0
        shown = f"{_mark(found['per_s'])}{middle:,.{n_digits}f} ({low:,.{n_digits}f} to {high:,.{n_digits}f})"
        said.append(f"{shown} {unit} ({found['by']})")
    return "; ".join(said)


def _rows(figure: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the row of a figure, and one more where another engine ran its kernels than the one that is measured."""
    kinds, is_apart = figure["kinds"], figure["kinds_by"] != figure["by"]
    parts = ", ".join(_part(name, kind) for name, kind in _by_time(kinds))
    first = (f"{figure['what']}: {figure['by']}", *_cells(figure), "" if is_apart else parts)
    if not is_apart:
        return [first]
    taken = sum(kind["seconds"]["median"] for kind in kinds.values())
    needs = total([kind["needs"] for kind in kinds.values()])
    least = sum(kind["least_s"] or 0.0 for kind in kinds.values())
    return [first, (figure["kinds_by"], _needs(needs), _time(least), _time(taken), _share(least / taken), parts)]


def _cells(figure: dict[str, Any]) -> tuple[str, ...]:
    seconds, least, share = figure["seconds"], figure["least_s"], figure["share"]
    taken = _mark(seconds) + _time(seconds["median"])
    return _needs(figure["needs"]), "" if least is None else _time(least), taken, _share(share)


def _by_time(kinds: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(kinds.items(), key=lambda item: -item[1]["seconds"]["median"])


def _part(name: str, kind: dict[str, Any]) -> str:
    share = _share(kind["share"])
    return f"{name} {_time(kind['seconds']['median'])}{f' ({share})' if share else ''}"


def _needs(needs: Needs) -> str:
    """Return what is needed in words: operations by kind of number, bytes."""
    said = [f"{_billions(needs[name])} G {name}" for name in (INT8, BF16, FLOAT32) if needs.get(name)]
    return ", ".join([*said, *([f"{needs[READ] * 1e-6:,.0f} MB read"] if needs.get(READ) else [])])


def _billions(n: float) -> str:
    return f"{n * 1e-9:,.0f}" if n >= 1e11 else f"{n * 1e-9:.3g}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.0995 else f"{seconds * 1e3:.2g} ms"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.0f} %"
