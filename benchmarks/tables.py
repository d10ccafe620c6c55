"""A comparison's results as tables: what the README shows of them, and what is printed after a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import report

COMPARED = (
    # metric, heading, factor, decimals
    ("encode_tile_s", "encode a tile, s", 1, 2),
    ("prefill_tokens_per_s", "prefill, tokens/s", 1, 0),
    ("decode_1024_tokens_per_s", "decode at 1k, tokens/s", 1, 0),
    ("first_token_s", "first token, s", 1, 1),
    ("second_first_token_s", "second question, new process, s", 1, 2),
    ("peak_rss_bytes", "peak memory, MB", 1e-6, 0),
)
SHOWN = (
    # the same of what is printed
    ("read_s", "read ms", 1000, 1),
    ("tile_s", "cut ms", 1000, 0),
    ("encode_tile_s", "encode a tile", 1, 3),
    ("prefill_tokens_per_s", "prefill", 1, 0),
    ("prefill_text_tokens_per_s", "text", 1, 0),
    ("first_token_s", "first token", 1, 2),
    ("decode_128_tokens_per_s", "decode 128", 1, 0),
    ("decode_1024_tokens_per_s", "1k", 1, 0),
    ("decode_4096_tokens_per_s", "4k", 1, 0),
    ("peak_rss_bytes", "peak MB", 1e-6, 0),
    ("ready_s", "ready", 1, 2),
    ("cold_first_token_s", "cold first token", 1, 2),
)


def section(found: dict[str, Any], picture: str) -> str:
    """Return what a comparison found, for the README: its plot at `picture`, every variant's figures, every verdict."""
    about, settings = found["machine"], found["settings"]
    cores = f"{about['cores']} cores{' kept awake' if settings.get('awake') else ''}"
    head = (
        f"{about['cpu']}, {cores}, {settings['threads']} threads; shapes {found['model']}, "
        f"{settings['tiles']} tiles, {settings['prompt_tokens']} prompt tokens; medians of {settings['rounds']} "
        f"interleaved rounds (lowest to highest); commit `{found['commit']}`.\n\n"
        f"![The same figures as bars]({picture})\n\n"
    )
    notes = "".join(f"- {note}\n" for note in _left_out(found))
    return "\n".join([head + _figures(found), _verdicts(found), *([notes] if notes else [])])


def _figures(found: dict[str, Any]) -> str:
    rows = [
        (name, *(_range(metrics.get(metric), factor, decimals) for metric, _, factor, decimals in COMPARED))
        for name, metrics in found["variants"].items()
    ]
    return _table(("variant", *(title for _, title, _, _ in COMPARED)), rows)


def _verdicts(found: dict[str, Any]) -> str:
    rows = [
        (
            row["what"],
            row["limit"],
            *(_figure(row.get(key)) for key in ("ratio", "ours", "theirs")),
            {True: "yes", False: "**no**"}[row["holds"]],
        )
        for row in found["must_hold"]
        if row["holds"] is not None  # its peer took no part
    ]
    return _table(("aim, against the best of llama.cpp or as named", "limit", "ratio", "edgevl", "peer", "met"), rows)


def _left_out(found: dict[str, Any]) -> list[str]:
    """Return a sentence for each reason why variants have no figures."""
    names: dict[str, list[str]] = {}
    for name, why in report.left_out(found).items():
        names.setdefault(why.splitlines()[0], []).append(name)
    return [f"left out: {'; '.join(of)} ({why})" for why, of in names.items()]


def _range(spread: dict[str, Any] | None, factor: float, decimals: int) -> str:
    if spread is None:
        return ""
    middle, low, high = (f"{spread[key] * factor:.{decimals}f}" for key in ("median", "lowest", "highest"))
    return f"{middle} ({low} to {high})"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1e-6:.0f} MB" if value > 1e6 else f"{value:.4g}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show(found: dict[str, Any]) -> None:
    """Print the figures and the verdicts as two tables."""
    about, settings = found["machine"], found["settings"]
    print(f"\n{about['cpu']}, {settings['threads']} threads on {about['cores']} cores; commit {found['commit']}")
    print(
        f"{found['model']}: {settings['tiles']} tiles, {settings['prompt_tokens']} prompt tokens; medians (quartiles)\n"
    )
    rows = []
    for name, metrics in found["variants"].items():
        cells = [_quartiles(metrics.get(metric), factor, decimals) for metric, _, factor, decimals in SHOWN]
        cosine = found["checks"].get(name, {}).get("feature_cosine", {}).get("mean")
        rows.append((name, *cells, "" if cosine is None else f"{cosine:.5f}"))
    print(_table(("variant", *(title for _, title, _, _ in SHOWN), "cosine"), rows))
    rows = []
    for row in found["must_hold"]:
        verdict = {True: "pass", False: "FAIL", None: "not measured"}[row["holds"]]
        figures = [_figure(row.get(key)) for key in ("ratio", "ours", "theirs")]
        rows.append((row["what"], row["limit"], *figures, f"{verdict} {row.get('best', '')}"))
    print(_table(("must hold", "limit", "ratio", "ours", "theirs", ""), rows), end="")
    for name, why in report.left_out(found).items():
        print(f"skipped: {name}: {why.splitlines()[0]}")


def _quartiles(spread: dict[str, Any] | None, factor: float, decimals: int) -> str:
    if spread is None:
        return ""
    median, low, high = (f"{value * factor:.{decimals}f}" for value in (spread["median"], *spread["quartiles"]))
    return f"{median} ({low}-{high})"
