"""From samples to verdicts, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import compare, report, stolen, tables
from benchmarks.compare import NOT_ASKED, Amount, Comparison, choose, parse
from benchmarks.peers import PEERS, VARIANTS, WITNESS, Stages, Variant, by_name

OURS = "edgevl, int8 vision, int4 decoder"
LLAMA = ("llama.cpp, bf16 mmproj, Q4_0 decoder", "llama.cpp, q8_0 mmproj, Q4_0 decoder")


def samples(**metrics: dict[str, list[float]]) -> report.Samples:
    """Return samples; `metrics` are named ours, bf16 or q8_0."""
    names = {"ours": OURS, "bf16": LLAMA[0], "q8_0": LLAMA[1]}
    found = report.Samples()
    for key, of in metrics.items():
        for metric, values in of.items():
            for value in values:
                found.add(names[key], metric, value)
    return found


def verdict(what: str, found: report.Samples) -> dict[str, Any]:
    [row] = [row for row in report.ratios(found.summary()) if row["what"] == what]
    return row


def test_a_summary_has_median_quartiles_and_extremes() -> None:
    found = samples(ours={"first_token_s": [5.0, 1.0, 2.0, 3.0, 4.0], "ready_s": [7.0]}).summary()[OURS]
    assert found["first_token_s"] == {
        "median": 3.0,
        "quartiles": [2.0, 4.0],
        "lowest": 1.0,
        "highest": 5.0,
        "values": [5.0, 1.0, 2.0, 3.0, 4.0],
    }
    assert found["ready_s"]["quartiles"] == [7.0, 7.0]


def test_a_time_is_compared_with_the_quickest_variant() -> None:
    found = samples(
        ours={"encode_tile_s": [0.3, 0.3, 9.0]}, bf16={"encode_tile_s": [1.0]}, q8_0={"encode_tile_s": [1.2]}
    )
    row = verdict("encode per tile", found)
    assert (row["holds"], row["best"], row["ratio"]) == (True, LLAMA[0], 0.3)
    found.add(LLAMA[1], "encode_tile_s", 0.4)
    assert verdict("encode per tile", found)["best"] == LLAMA[1]  # 0.8 at the median
    assert verdict("encode per tile", found)["holds"] is False


def test_a_speed_is_compared_with_the_highest() -> None:
    metric = "decode_1024_tokens_per_s"
    row = verdict("decode at 1k context, 4 bits", samples(ours={metric: [124.0]}, bf16={metric: [100.0]}))
    assert (row["holds"], row["limit"]) == (False, ">= 1.25")
    row = verdict("decode at 1k context, 4 bits", samples(ours={metric: [125.0]}, bf16={metric: [100.0]}))
    assert row["holds"] is True


def test_bits_are_compared_with_the_same_bits() -> None:
    metric = "decode_1024_tokens_per_s"
    assert verdict("decode at 1k context, 8 bits", samples(ours={metric: [1.0]}, bf16={metric: [1.0]}))["holds"] is None


def test_what_was_not_measured_is_no_failure_and_no_pass() -> None:
    assert {row["holds"] for row in report.ratios({})} == {None}
    assert {row["holds"] for row in report.counts({}, {})} == {None}


def test_a_missed_aim_is_told_apart_from_one_that_was_not_measured() -> None:
    met, missed, unmeasured = ({"what": str(holds), "holds": holds} for holds in (True, False, None))
    assert report.verdict([met, met]) == (0, "aims met: 2 of 2")
    assert report.verdict([met, missed]) == (1, "aims met: 1 of 2\nmissed: False")
    assert report.verdict([met, unmeasured]) == (2, "aims met: 1 of 2\nnot measured: None")
    assert report.verdict([unmeasured, missed]) == (1, "aims met: 0 of 2\nmissed: False\nnot measured: None")
    nothing = [*report.ratios({}), *report.counts({}, {})]
    code, said = report.verdict(nothing)
    assert code == 2
    assert said.startswith(f"aims met: 0 of {len(nothing)}\nnot measured: encode per tile; ")


def test_counts() -> None:
    found = samples(ours={"next_screen_n_encoded": [2.0], "next_screen_n_changed": [2.0]}).summary()
    checks = {OURS: {"feature_cosine": {"mean": 0.9985}}}
    assert [row["holds"] for row in report.counts(found, checks)] == [False, True]


def test_the_document_is_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    summary = samples(
        ours={"encode_tile_s": [0.3], "decode_128_tokens_per_s": [100.0]}, bf16={"encode_tile_s": [1.0, 1.1]}
    ).summary()
    found = {
        "model": "tiny",
        "commit": "abc",
        "machine": {"cpu": "Some CPU (R)", "cores": 2},
        "settings": {"threads": 2, "tiles": 5, "prompt_tokens": 99, "contexts": [128]},
        "must_hold": report.ratios(summary),
        "skipped": {"OpenVINO, int8 vision": "nncf not installed; pip install\nmore"},
        "checks": {OURS: {"feature_cosine": {"mean": 0.9995}}},
        "about": {},
        "variants": summary,
    }
    tables.show(found)
    said = capsys.readouterr().out
    assert "| encode per tile | <= 0.33 | 0.2857 | 0.3 | 1.05 | pass llama.cpp, bf16 mmproj, Q4_0 decoder |" in said
    assert "skipped: OpenVINO, int8 vision: nncf not installed; pip install" in said
    paths = report.write(found, tmp_path)
    assert [path.name for path in paths] == [f"some-cpu-r-2-cores-abc-compare-tiny.{end}" for end in ("json", "png")]
    assert json.loads(paths[0].read_text(encoding="utf-8"))["commit"] == "abc"
    assert paths[1].stat().st_size > 10_000


def test_every_ratio_names_variants_that_exist() -> None:
    import re

    names = [variant.name for variant in VARIANTS]
    for row in report.RATIOS:
        assert report.OURS.format(row.ours[0]) in names
        assert any(re.search(row.theirs[0], name) for name in names)


def test_variants_name_stages_and_themselves() -> None:
    stages = {name for name in vars(Stages) if not name.startswith("_")}
    for variant in (*VARIANTS, WITNESS):
        assert set(variant.stages) <= stages
        assert by_name(variant.name) is variant


def test_a_missing_package_is_named() -> None:
    variant = Variant("x", "x", "x", needs=("json", "no_such_module"))
    assert variant.missing == "no_such_module not installed; pip install -e '.[dev,bench]'"
    assert Variant("x", "x", "x", needs=("json",)).missing is None


def test_choosing_peers() -> None:
    assert {variant.peer for variant in choose("openvino,genai")} == {"openvino", "genai"}
    assert choose(None) == list(VARIANTS)
    with pytest.raises(SystemExit, match=f"unknown peer 'torch'; there are {', '.join(PEERS)}"):
        choose("edgevl,torch")
    assert parse(["--model", "500m", "--threads", "2"]).threads == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "argument --rounds: '0' must be a whole number above 0"),
        (["--threads", "-1"], "argument --threads: '-1' must be a whole number above 0"),
        (["--rounds", "2.5"], "argument --rounds: '2.5' must be a whole number above 0"),
        (["--image", "nowhere.jpg"], "argument --image: nowhere.jpg: no such file; check the path"),
    ],
)
def test_what_cannot_be_measured_is_wrong_usage(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture that is not there would be replaced by a drawn one, and without rounds an empty result be written."""
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def compared(peers: str | None) -> Comparison:
    """Return a comparison of which nothing has run."""
    case: Any = SimpleNamespace(model="tiny", n_threads=1, prompt={"n_tiles": 5, "n_tokens": 99})
    return Comparison(case, choose(peers), Amount(rounds=1, n_tiles=2, n_tokens=8, contexts=(128,)))


def test_what_was_not_asked_for_is_in_the_results_by_name() -> None:
    found = report.document(compared("openvino,edgevl"), 2, False)
    assert found["skipped"] == {v.name: NOT_ASKED for v in VARIANTS if v.peer not in ("edgevl", "openvino")}
    assert NOT_ASKED == "not asked for (--peers)"
    assert found["settings"]["peers"] == ["edgevl", "openvino"]
    everything = report.document(compared(None), 2, False)
    assert (everything["skipped"], everything["settings"]["peers"]) == ({}, list(PEERS))


def test_time_that_the_host_kept_is_in_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compared(None)
    comparison.variants = []
    readings = iter([stolen.Used(wanted=100, stolen=10), stolen.Used(wanted=300, stolen=60)])
    monkeypatch.setattr(stolen, "used", lambda: next(readings))
    comparison.rounds()
    assert report.document(comparison, 2, False)["noise"] == {"stolen_share": 0.25}


def test_a_verdict_holds_the_spread_of_the_less_steady_side() -> None:
    steady, unsteady = [1.0, 1.0], [0.8, 1.0, 1.2]  # quartiles of 0.9 and 1.1
    row = verdict("encode per tile", samples(ours={"encode_tile_s": steady}, bf16={"encode_tile_s": unsteady}))
    assert row["spread"] == pytest.approx(0.2)
    row = verdict("encode per tile", samples(ours={"encode_tile_s": unsteady}, bf16={"encode_tile_s": steady}))
    assert row["spread"] == pytest.approx(0.2)


def test_unsteady_is_more_than_a_fifth() -> None:
    found = samples(ours={"ready_s": [8.0, 10.0, 12.0], "read_s": [7.8, 10.0, 12.0], "tile_s": [0.0]}).summary()[OURS]
    assert [report.is_unsteady(found[metric]) for metric in ("ready_s", "read_s", "tile_s")] == [False, True, False]


def in_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile_s: dict[str, float]) -> None:
    """Let a run of compare find that a tile takes so long with each variant, and nothing else."""
    case = SimpleNamespace(model="tiny", n_threads=1, prompt={"n_tiles": 5, "n_tokens": 99}, folder=tmp_path)
    for name, stand_in in (("Case", case), ("make", None), ("use_cores", 2)):
        monkeypatch.setattr(compare, name, lambda *_, value=stand_in, **__: value)
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    for name in ("build", "check"):
        monkeypatch.setattr(Comparison, name, lambda _: None)

    def round_(self: Comparison, _: int) -> None:
        for name, seconds in tile_s.items():
            self.samples.add(name, "encode_tile_s", seconds)

    monkeypatch.setattr(Comparison, "round", round_)


@pytest.mark.parametrize(("tile_s", "code"), [({}, 2), ({LLAMA[0]: 1.0}, 2), ({LLAMA[0]: 0.1}, 1)])
def test_a_check_ends_with_1_for_a_missed_aim_alone(
    tile_s: dict[str, float],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_no_time(tmp_path, monkeypatch, {OURS: 0.3, **tile_s})
    assert compare.main(["--model", "tiny", "--rounds", "1", "--check"]) == code
    said = capsys.readouterr().out
    assert ("missed: encode per tile\n" in said) == (code == 1)
    [unmeasured] = [line for line in said.splitlines() if line.startswith("not measured: ")]
    assert ("encode per tile; " in unmeasured) == (not tile_s)
    assert "peak memory; " in unmeasured
    assert compare.main(["--model", "tiny", "--rounds", "1"]) == 0


def test_a_run_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_no_time(tmp_path, monkeypatch, {OURS: 0.3})
    assert compare.main(["--model", "tiny", "--peers", "edgevl", "--rounds", "3"]) == 0
    assert f"skipped: {LLAMA[0]}: {NOT_ASKED}" in capsys.readouterr().out.splitlines()
    [path] = tmp_path.glob("*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert len(found["variants"][OURS]["encode_tile_s"]["values"]) == 3
    assert tables.section(found, "plot.png").count(NOT_ASKED) == 1
