"""Plans that a process must survive: it maps a downloaded file, and computes where a plan says."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgevl.engine.native.plan import plan_path
from tests.engine.native.plans import Shape, needs_library, places, set_to, write

TELLS = "; export or download the model again"
HOSTILE = """
import json, sys
from pathlib import Path
import numpy as np
from edgevl.errors import EdgeVLError, ManifestError
from tests.engine.native.plans import Shape, write
from edgevl.engine.native.plan import plan_path

made = write(Path(sys.argv[1]), Shape(has_biases=True, n_layers=1))
for line in sys.stdin:
    plan_path(made.path).write_text(line, "utf-8")
    try:
        decoder = made.opened()
        for n in (1, 3, 17):
            decoder.extend(made.ids(n))
            decoder.extend_each([1, 2])
        said = "runs"
        decoder.logits()
    except ManifestError as error:
        said = str(error)
    except EdgeVLError as error:
        said = "fails: " + str(error)
    print(json.dumps(said), flush=True)
"""
INSTEAD = (0, -1, 1, 4, 16, 2**31 - 1, 2**31, 2**32, 2**40, 2**63, 2**64, "7", None, 2.5, [], {}, True)
MAY_BE_ANOTHER = (
    *("cos", "sin", "final_norm", "norm", "post_norm", "weights", "scales", "bias"),
    *("scale", "epsilon", "half_rotary"),
)
"""What may be another number without harm: another place within the weights, and how much is turned."""


@needs_library
def test_no_plan_ends_the_process(tmp_path: Path) -> None:
    """Each number in turn is another one, each key gone, and one added: an error, or a decoder that runs."""
    made = write(tmp_path, Shape(has_biases=True, n_layers=1))
    document = json.loads(plan_path(made.path).read_text("utf-8"))
    everywhere = [place for place in places(document) if place != ("form",)]
    cases: list[tuple[tuple[Any, ...], Any]] = [(place, value) for place in everywhere for value in INSTEAD]
    lines = []
    for place, value in cases:
        other = copy.deepcopy(document)
        set_to(other, place, value)
        lines.append(json.dumps(other))
    for place in everywhere:
        other = copy.deepcopy(document)
        inner = other
        for step in place[:-1]:
            inner = inner[step]
        del inner[place[-1]]
        cases.append((place, "gone"))
        lines.append(json.dumps(other))
    (tmp_path / "hostile").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(tmp_path / "hostile")],
        input="\n".join(lines) + "\n", capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=300,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == len(cases)
    began = f"{tmp_path / 'hostile' / 'decoder.onnx.native.json'}: "
    for (place, value), said in zip(cases, found, strict=True):
        if said == "runs" or said.startswith("fails: "):
            assert value != "gone"
            assert place[-1] in MAY_BE_ANOTHER or _is_same(document, place, value), (place, value)
        else:
            assert said.startswith(began), (place, value)
            assert said.endswith(TELLS)
    assert "runs" in found


def _is_same(document: Any, place: tuple[Any, ...], value: Any) -> bool:
    for step in place:
        document = document[step]
    return type(document) is type(value) and document == value
