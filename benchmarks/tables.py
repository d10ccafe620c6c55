"""A comparison's results as tables: what the README shows of them, and what is printed after a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import report

Columns = Sequence[tuple[str, str, float, int]]
"""Metric, heading, factor, decimals."""
Cell = Callable[[dict[str, Any] | None, float, int], str]

COMPARED: Columns = (
    ("encode_tile_s", "encode a tile, s", 1, 2),
    ("prefill_tokens_per_s", "prefill, tokens/s", 1, 0),
    ("decode_1024_tokens_per_s", "decode at 1k, tokens/s", 1, 0),
    ("first_token_s", "first token, s", 1, 1),
    ("second_first_token_s", "second question, new process, s", 1, 2),
    ("peak_rss_bytes", "peak memory, MB", 1e-6, 0),
)
FURTHER: Columns = (
    # of the second table
    ("read_s", "read, ms", 1000, 1),
    ("tile_s", "cut, ms", 1000, 0),
    ("prefill_text_tokens_per_s", "prefill of text, tokens/s", 1, 0),
    ("decode_128_tokens_per_s", "decode at 128, tokens/s", 1, 0),
    ("decode_4096_tokens_per_s", "decode at 4k, tokens/s", 1, 0),
    ("cold_first_token_s", "first token from the start of the process, s", 1, 1),
)
SHOWN: Columns = (
    # of what is printed
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
BESIDE = (
    # metric, heading
    ("read_s", "read"),
    ("tile_s", "cut"),
    ("encode_tile_s", "encode a tile"),
    ("prefill_tokens_per_s", "prefill"),
    ("prefill_text_tokens_per_s", "prefill of text"),
    ("decode_128_tokens_per_s", "decode at 128"),
    ("decode_1024_tokens_per_s", "at 1k"),
    ("decode_4096_tokens_per_s", "at 4k"),
    ("first_token_s", "first token"),
    ("cold_first_token_s", "from the start of the process"),
    ("peak_rss_bytes", "peak memory"),
)
UNSTEADY = "~"
MARKED = (
    f"`{UNSTEADY}`: quartiles lie more than {report.MAX_SPREAD * 100:.0f} % of the median apart; "
    "this, and what rests on it, may be the machine's noise"
)
EXTRAS = {"openvino": "openvino", "llama.cpp": "gguf"}
"""Engines that the base install lacks, and the extra that holds them."""


def section(found: dict[str, Any], picture: str) -> str:
    """Return what a comparison found, for the README: its plot at `picture`, figures, ratios, verdicts."""
    about, settings = found["machine"], found["settings"]
    cores = f"{about['cores']} cores{' kept awake' if settings.get('awake') else ''}"
    head = (
        f"{about['cpu']}, {cores}, {settings['threads']} threads; shapes {found['model']}, "
        f"{settings['tiles']} tiles, {settings['prompt_tokens']} prompt tokens; medians of {settings['rounds']} "
        f"interleaved rounds (lowest to highest); commit `{found['commit']}`.\n\n"
        f"![The same figures as bars]({picture})\n\n"
    )
    tables = [_figures(found), _further(found), _beside(found), _verdicts(found)]
    notes = [*_noise(found, tables), *_engines(found), *_prompts(found), *_unmeasured(found), *_left_out(found)]
    listed = "".join(f"- {note}\n" for note in notes)
    return head + "\n".join(part for part in (*tables, listed) if part)


def _titles(columns: Columns) -> list[str]:
    return [title for _, title, _, _ in columns]


def _rows(found: dict[str, Any], columns: Columns, cell: Cell) -> list[tuple[str, ...]]:
    """Return a row a variant: its name, and what `cell` makes of each column's figure."""
    return [
        (name, *(cell(metrics.get(metric), factor, decimals) for metric, _, factor, decimals in columns))
        for name, metrics in found["variants"].items()
    ]


def _cosine(found: dict[str, Any], name: str) -> str:
    cosine = found["checks"].get(name, {}).get("feature_cosine", {}).get("mean")
    return "" if cosine is None else f"{cosine:.5f}"


def _figures(found: dict[str, Any]) -> str:
    return _table(("variant", *_titles(COMPARED)), _rows(found, COMPARED, _range))


def _further(found: dict[str, Any]) -> str:
    """Return the second table, of those variants that have any of its figures."""
    shown = [row for row in _rows(found, FURTHER, _median) if any(row[1:])]
    return _table(("medians", *_titles(FURTHER)), shown) if shown else ""


def _beside(found: dict[str, Any]) -> str:
    """Return the table of ratios to every other variant, of the metrics that any of them has."""
    rows = {name: ratios for name, ratios in report.beside(found["variants"]).items() if ratios}
    shown = [(metric, title) for metric, title in BESIDE if any(metric in ratios for ratios in rows.values())]
    if not shown:
        return ""
    return _table(
        ("edgevl's figure over the other's, no limit set (**bold**: edgevl is behind)", *(title for _, title in shown)),
        [(name, *(_ratio(ratios.get(metric)) for metric, _ in shown)) for name, ratios in rows.items()],
    )


def _ratio(found: report.Beside | None) -> str:
    if found is None:
        return ""
    shown = f"**{found.ratio:.2f}**" if found.is_behind else f"{found.ratio:.2f}"
    return UNSTEADY + shown if found.is_unsteady else shown


def _verdicts(found: dict[str, Any]) -> str:
    rested = {row["what"]: row.get("spread", 0.0) for row in report.ratios(found["variants"])}  # not in all results
    rows = []
    for row in found["must_hold"]:
        if row["holds"] is None:
            continue  # named below the table
        ratio, ours, theirs = (_figure(row.get(key)) for key in ("ratio", "ours", "theirs"))
        mark = UNSTEADY if rested.get(row["what"], 0.0) > report.MAX_SPREAD else ""
        rows.append((row["what"], row["limit"], mark + ratio, ours, theirs, "yes" if row["holds"] else "**no**"))
    return _table(("aim, against the best of llama.cpp or as named", "limit", "ratio", "edgevl", "peer", "met"), rows)


def _noise(found: dict[str, Any], tables: Sequence[str]) -> list[str]:
    """Return what is to be said about unsteady figures in `tables`, and about the host where the results tell."""
    said = [MARKED] if any(UNSTEADY in table for table in tables) else []
    share = found.get("noise", {}).get("stolen_share")
    if share is not None:
        said.append(f"the host kept {share * 100:.0f} % of the time in which these cores had work")
    return said


def _engines(found: dict[str, Any]) -> list[str]:
    """Return the sentence that tells what edgevl ran on."""
    ours = {name: about for name, about in found["about"].items() if "vision" in about and "decoder" in about}
    if not ours:
        return []
    vision, decoder = (
        _by_engine({name: about[part] for name, about in ours.items()}) for part in ("vision", "decoder")
    )
    return [f"edgevl ran image encoders on {vision}, decoders on {decoder}"]


def _by_engine(engines: dict[str, str]) -> str:
    """Return each engine of the variants' `engines`: the extra that holds it, and who ran it where not all did."""
    names = _grouped(engines)
    return " and ".join(engine + _about(engine, of if len(names) > 1 else []) for engine, of in names.items())


def _about(engine: str, variants: Sequence[str]) -> str:
    extra, said = EXTRAS.get(engine.partition(" ")[0]), []
    if extra:
        said.append(f"the extra `{extra}`")
    if variants:
        said.append(", ".join(name.rpartition(", ")[2] for name in variants))
    return f" ({'; '.join(said)})" if said else ""


def _prompts(found: dict[str, Any]) -> list[str]:
    """Return the sentence that says which weights read prompts where those are not a row's own (export/prefill.py)."""
    name = report.OURS.format("int4")
    is_graph = found["about"].get(name, {}).get("decoder", "").startswith("onnxruntime")
    said = "prefill, 4 bits: edgevl reads prompts with int8 weights, in a graph of their own; the others do not"
    return [said] if is_graph and "prefill_tokens_per_s" in found["variants"].get(name, {}) else []


def _unmeasured(found: dict[str, Any]) -> list[str]:
    """Return the sentence that names the aims of which a side was not measured."""
    names = report.without_figure(found["must_hold"])
    return [f"aims without a figure in this run: {'; '.join(names)}"] if names else []


def _left_out(found: dict[str, Any]) -> list[str]:
    """Return a sentence for each reason why variants have no figures."""
    reasons = {name: why.splitlines()[0] for name, why in report.left_out(found).items()}
    return [f"left out: {'; '.join(names)} ({why})" for why, names in _grouped(reasons).items()]


def _grouped(texts: dict[str, str]) -> dict[str, list[str]]:
    """Return the keys of each text, both in their order."""
    keys: dict[str, list[str]] = {}
    for key, text in texts.items():
        keys.setdefault(text, []).append(key)
    return keys


def _median(spread: dict[str, Any] | None, factor: float, decimals: int) -> str:
    return "" if spread is None else f"{_mark(spread)}{spread['median'] * factor:.{decimals}f}"


def _range(spread: dict[str, Any] | None, factor: float, decimals: int) -> str:
    if spread is None:
        return ""
    middle, low, high = (f"{spread[key] * factor:.{decimals}f}" for key in ("median", "lowest", "highest"))
    return f"{_mark(spread)}{middle} ({low} to {high})"


def _mark(spread: dict[str, Any]) -> str:
    return UNSTEADY if report.is_unsteady(spread) else ""


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    if value > 1e6:
        return f"{value * 1e-6:.0f} MB"
    return f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}"  # which would have an exponent


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show(found: dict[str, Any]) -> None:
    """Print the figures, the ratios without limits and the verdicts as three tables."""
    about, settings = found["machine"], found["settings"]
    print(f"\n{about['cpu']}, {settings['threads']} threads on {about['cores']} cores; commit {found['commit']}")
    print(
        f"{found['model']}: {settings['tiles']} tiles, {settings['prompt_tokens']} prompt tokens; medians (quartiles)\n"
    )
    measured = [(*row, _cosine(found, row[0])) for row in _rows(found, SHOWN, _quartiles)]
    print(_table(("variant", *_titles(SHOWN), "cosine"), measured))
    beside = _beside(found)
    print(beside)
    rows = []
    for row in found["must_hold"]:
        verdict = {True: "pass", False: "FAIL", None: "not measured"}[row["holds"]]
        figures = [_figure(row.get(key)) for key in ("ratio", "ours", "theirs")]
        rows.append((row["what"], row["limit"], *figures, f"{verdict} {row.get('best', '')}"))
    print(_table(("must hold", "limit", "ratio", "ours", "theirs", ""), rows), end="")
    for note in (*_noise(found, [beside]), *_engines(found)):
        print(note)
    for name, why in report.left_out(found).items():
        print(f"skipped: {name}: {why.splitlines()[0]}")


def _quartiles(spread: dict[str, Any] | None, factor: float, decimals: int) -> str:
    if spread is None:
        return ""
    median, low, high = (f"{value * factor:.{decimals}f}" for value in (spread["median"], *spread["quartiles"]))
    return f"{median} ({low}-{high})"
