"""On which device a part of a model runs: on that which is asked for, else on the one measured to be quickest, once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgevl
from edgevl import machine, placement
from edgevl.engine import devices, graph, openvino
from edgevl.engine.devices import (
    COREML_PROVIDER,
    CPU,
    CPU_PROVIDER,
    CUDA_PROVIDER,
    DEVICES,
    LLAMA,
    LLAMA_CUDA,
    OPENVINO,
)
from edgevl.engine.native import decoder as native
from edgevl.engine.native.plan import plan_path
from edgevl.errors import BackendMissing, GraphError
from edgevl.model import hub, manifest
from edgevl.placement import Placement, quickest
from edgevl.store import kept
from edgevl.store.disk import Disk
from tests import intel
from tests.mixed import LLAMA_MISSING
from tests.natively import MISSING

FOLDER = hub.find(None)
SPEC = manifest.read(FOLDER)
SHAPES = FOLDER.parent / "samples" / "shapes.png"
ORT = machine.version("onnxruntime")
DECODER = native.backend() or f"onnxruntime {ORT} cpu"
"""What computes the bundled decoder on the CPU."""
WITH_CUDA = {CPU_PROVIDER, CUDA_PROVIDER, LLAMA_CUDA}

needs_openvino = pytest.mark.skipif(not openvino.is_present(), reason="OpenVINO is not installed")
no_cuda = pytest.mark.skipif(CUDA_PROVIDER in graph.providers(), reason="this onnxruntime was built with CUDA")


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "profiles"))
    return tmp_path / "profiles"


def placed(device: str = "auto", folder: Path = FOLDER, **settings: Any) -> Placement:
    return Placement(folder, manifest.read(folder), device=device, threads=1, **settings)


def tile() -> NDArray[np.float32]:
    side = SPEC.image.tile
    return np.random.default_rng(1).uniform(-1, 1, (1, 3, side, side)).astype(np.float32)


class TestAskedFor:
    def test_an_unknown_device_says_which_there_are(self) -> None:
        with pytest.raises(BackendMissing) as caught:
            placed("npu")
        assert str(caught.value) == (
            "device 'npu' is not supported by this version; "
            "use one of auto, cpu, openvino, openvino-gpu, openvino-npu, cuda, coreml, metal"
        )

    def test_the_cpu_is_not_measured(self, profiles: Path) -> None:
        assert placed("cpu").encoder().backend == placed("cpu").likely_encoder() == f"onnxruntime {ORT} cpu"
        assert placed("cpu").decoder().backend == placed("cpu").likely_decoder() == DECODER
        assert not profiles.exists()

    @needs_openvino
    def test_openvino_runs_the_encoder_and_the_cpu_the_decoder(self) -> None:
        both = placed("openvino")
        assert both.encoder().backend == both.likely_encoder() == f"openvino {openvino.version()} cpu"
        assert both.decoder().backend == DECODER

    @pytest.mark.usefixtures("as_graphs")
    def test_a_decoder_runs_as_a_graph_where_it_cannot_be_computed_without(self) -> None:
        on_cpu = placed("cpu")
        assert on_cpu.decoder().backend == on_cpu.likely_decoder() == f"onnxruntime {ORT} cpu"

    def test_a_decoder_that_is_not_described_runs_as_a_graph(self, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint")))
        plan_path(folder / SPEC.decoder.file).unlink()
        on_cpu = placed("cpu", folder)
        assert on_cpu.decoder().backend == on_cpu.likely_decoder() == f"onnxruntime {ORT} cpu"

    @pytest.mark.parametrize(("device", "system"), [("openvino", "linux"), ("cuda", "linux"), ("coreml", "darwin")])
    def test_one_that_is_not_here_names_the_command_that_adds_it(self, device: str, system: str) -> None:
        with pytest.raises(BackendMissing) as caught:
            placed(device, available={CPU_PROVIDER}, system=system)
        assert str(caught.value).endswith(f"; to add it: {devices.COMMANDS[DEVICES[device].needs['vision']]}")

    @no_cuda
    def test_what_is_here_is_looked_up(self) -> None:
        with pytest.raises(BackendMissing, match=r"device cuda .*onnxruntime-gpu"):
            placed("cuda", system="linux")
        found = placement.found("vision")
        assert {*graph.providers()} <= found
        assert (OPENVINO in found) == openvino.is_present()

    @pytest.mark.skipif(native.backend() is None, reason=MISSING)
    @needs_openvino
    def test_onnxruntime_is_not_loaded_for_what_is_computed_without_it(self, profiles: Path) -> None:
        code = (
            "import sys, edgevl\n"
            "vlm = edgevl.load(device='openvino', store=False)\n"
            f"print(bool(vlm.ask({str(SHAPES)!r}, 'what is here?').text), 'onnxruntime' in sys.modules)"
        )
        for loads in (True, False):  # the first time it is asked for its providers
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            assert done.stdout.split() == ["True", str(loads)], done.stderr

    def test_another_onnxruntime_is_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def providers() -> tuple[str, ...]:
            asked.append(graph.build())
            return (CPU_PROVIDER,) if len(asked) == 1 else (CUDA_PROVIDER, CPU_PROVIDER)

        monkeypatch.setattr(graph, "providers", providers)
        assert CUDA_PROVIDER not in placement.found("vision") | placement.found("vision")
        monkeypatch.setattr(graph, "build", lambda: "the same version from another package")
        assert CUDA_PROVIDER in placement.found("vision") & placement.found("vision")
        assert len(asked) == 2

    def test_in_a_container_graphs_have_no_more_threads_than_it_is_granted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[int | None] = []
        options = graph._options
        monkeypatch.setattr(graph, "_options", lambda threads, *rest: told.append(threads) or options(threads, *rest))
        monkeypatch.setattr(machine, "n_granted", lambda: 1)
        monkeypatch.setattr(machine, "_n_allowed", lambda: 64)
        monkeypatch.setattr(machine, "describe", partial(replace, machine.describe(), n_cores=32, n_usable=1))
        for threads in (None, 2):
            Placement(FOLDER, SPEC, device="cpu", threads=threads).encoder()
        assert told == [1, 2]


class TestFailing:
    """A device that is listed and does not load: the CPU is used, with one warning, and the answer comes."""

    @no_cuda
    def test_a_provider_that_onnxruntime_cannot_load(self, caplog: pytest.LogCaptureFixture, profiles: Path) -> None:
        both = placed("cuda", available=WITH_CUDA, system="linux")
        assert both.encoder().backend == f"onnxruntime {ORT} cpu"
        assert both.decoder().backend == DECODER
        assert caplog.messages == [
            f"{FOLDER / SPEC.vision.file}: this onnxruntime has no {CUDA_PROVIDER}; "
            f"to add it: {devices.COMMANDS[CUDA_PROVIDER]}; the CPU is used"
        ]
        np.testing.assert_array_equal(both.encoder().encode(tile()), placed("cpu").encoder().encode(tile()))
        assert not profiles.exists(), "it is tried again next time"

    @pytest.mark.skipif(sys.platform not in DEVICES["cuda"].systems, reason="there is no CUDA on this system")
    def test_the_answer_comes(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Where onnxruntime has CUDA and a card is here, it comes from there."""
        with edgevl.load(device="cpu", store=False) as vlm:
            wanted = vlm.ask(SHAPES, "what's here?").text
        monkeypatch.setattr(placement, "found", lambda part: WITH_CUDA)
        with edgevl.load(device="cuda", store=False) as vlm:
            assert vlm.ask(SHAPES, "what's here?").text == wanted
            assert (vlm._model.encoder.backend.endswith(" cuda")) == (not caplog.messages)  # type: ignore[union-attr]
        assert len(caplog.messages) <= 1

    @needs_openvino
    def test_openvino_that_cannot_compile_the_graph(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = Path(shutil.copytree(FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint")))
        openvino.ranges_path(folder / SPEC.vision.file).write_text("no ranges")
        encoder = placed("openvino", folder).encoder()
        assert encoder.backend.startswith("onnxruntime ")
        [message] = caplog.messages
        assert "OpenVINO cannot load it" in message
        assert message.endswith("; the CPU is used")
        assert f"{placed('openvino', folder).trouble(DEVICES['openvino'])}; the CPU is used" == message
        assert placed("openvino").trouble(DEVICES["openvino"]) is None

    def test_a_llama_cpp_that_offloads_nothing(self, bundled_gguf_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
        from edgevl.engine import gguf

        if gguf.offloads():
            pytest.skip("this llama.cpp offloads")
        decoder = placed("metal", bundled_gguf_dir, available={devices.LLAMA_METAL}, system="darwin").decoder()
        assert decoder.backend.endswith(" cpu")
        [message] = caplog.messages
        assert "device metal is not here for the GGUF decoder; to add it: pip uninstall" in message

    def test_what_is_measured_and_gone_since(self, caplog: pytest.LogCaptureFixture) -> None:
        mac = placed(available={CPU_PROVIDER, COREML_PROVIDER}, system="darwin")
        assert kept.write(mac.key("vision"), {"cpu": 2.0, "coreml": 1.0})
        assert mac.encoder().backend.startswith("onnxruntime ")
        if COREML_PROVIDER not in graph.providers():
            [message] = caplog.messages
            assert f"this onnxruntime has no {COREML_PROVIDER}; to add it: " in message
            assert message.endswith("; the CPU is used")


class TestAuto:
    @pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
    def test_with_the_cpu_alone_nothing_is_measured(self, system: str, profiles: Path) -> None:
        alone = placed(available={CPU_PROVIDER, "AzureExecutionProvider"}, system=system)
        assert alone.encoder().backend.endswith(" cpu")
        assert alone.decoder().backend == DECODER
        assert not profiles.exists()

    def test_a_gguf_decoder_with_the_cpu_alone(self, bundled_gguf_dir: Path) -> None:
        alone = placed(folder=bundled_gguf_dir, available={LLAMA})
        assert alone.decoder().backend.startswith("llama.cpp ")
        assert alone.measured("gguf") == {}

    def test_llama_cpp_is_tried_aside_once_where_builds_of_it_end_the_process(
        self, bundled_gguf_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[Path] = []
        monkeypatch.setattr(placement.aside, "run", tried.append)
        about = replace(machine.describe(), features=("AVX2", "AMX"))
        monkeypatch.setattr(machine, "describe", lambda: about)
        for _ in range(2):
            placed(folder=bundled_gguf_dir, available={LLAMA}).decoder()
        assert tried == [bundled_gguf_dir / "decoder.gguf"]

    def test_elsewhere_it_is_not(self, bundled_gguf_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement.aside, "run", lambda path: pytest.fail("was tried"))
        about = replace(machine.describe(), features=("AVX2",))
        monkeypatch.setattr(machine, "describe", lambda: about)
        placed(folder=bundled_gguf_dir, available={LLAMA}).decoder()

    def test_llama_cpp_is_looked_at_as_it_is(self) -> None:
        gguf = pytest.importorskip("edgevl.engine.gguf")
        if placement.installed("llama.cpp") is None:
            pytest.skip(LLAMA_MISSING)
        assert LLAMA in placement.found("gguf")
        assert (len(placement.found("gguf")) == 2) == gguf.library().llama_supports_gpu_offload()

    @needs_openvino
    def test_a_quick_graph_stays_on_the_cpu(self) -> None:
        auto = placed(available={CPU_PROVIDER, OPENVINO})
        assert auto.encoder().backend.startswith("onnxruntime ")
        [(name, seconds)] = auto.measured("vision").items()
        assert name == "cpu"
        assert 0 < seconds < placement.QUICK_S

    @needs_openvino
    def test_a_slower_graph_is_tried_on_each_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement, "QUICK_S", 0.0)
        auto = placed(available={CPU_PROVIDER, OPENVINO})
        chosen = auto.encoder()
        found = auto.measured("vision")
        assert set(found) == {"cpu", "openvino"}
        assert chosen.backend.startswith({"cpu": "onnxruntime", "openvino": "openvino"}[quickest(found)])
        monkeypatch.setattr(Placement, "_measure", None)  # would fail if it were called again
        assert auto.encoder().backend == chosen.backend

    @needs_openvino
    @pytest.mark.parametrize("name", ["cpu", "openvino"])
    def test_what_was_measured_decides(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        auto = placed(available={CPU_PROVIDER, OPENVINO})
        assert kept.write(auto.key("vision"), {"cpu": 2.0, "openvino": 2.0, name: 1.0})
        monkeypatch.setattr(placement, "_seconds", None)  # and nothing is tried again
        assert auto.encoder().backend.startswith({"cpu": "onnxruntime", "openvino": "openvino"}[name])

    def test_what_was_measured_holds_for_what_was_here(self) -> None:
        keys = [
            placed(available=available, system="linux").key("vision")
            for available in ({CPU_PROVIDER}, {CPU_PROVIDER, OPENVINO}, {CPU_PROVIDER, OPENVINO, CUDA_PROVIDER})
        ]
        assert [key["devices"] for key in keys] == ["cpu", "cpu,openvino", "cpu,openvino,cuda"]
        assert keys[0]["onnxruntime"] == ORT

    @needs_openvino
    def test_what_is_damaged_of_what_was_measured_is_left_out(self) -> None:
        auto = placed(available={CPU_PROVIDER, OPENVINO})
        odd = {"openvino": "quick", "cuda": float("nan"), "coreml": 10**400, "metal": True, "abacus": 1.0}
        assert kept.write(auto.key("vision"), {"cpu": 2.0, **odd})
        assert auto.measured("vision") == {"cpu": 2.0}
        assert auto.encoder().backend.startswith("onnxruntime ")

    @pytest.mark.parametrize("trouble", ["raises", "computes something else"])
    def test_a_device_that_does_not_work_is_not_used(
        self, trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(placement, "QUICK_S", 0.0)
        monkeypatch.setattr(placement, "OpenVINOGraph", _broken(trouble))
        auto = placed(available={CPU_PROVIDER, OPENVINO})
        assert auto.encoder().backend.startswith("onnxruntime ")
        [message] = caplog.messages
        assert message.endswith("; it is not used")
        assert set(auto.measured("vision")) == {"cpu"}


@pytest.mark.usefixtures("as_graphs")
class TestApart:
    """All of CUDA's way but the card: the CPU computes, and what a card would keep lies in memory apart."""

    @pytest.fixture(autouse=True)
    def row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        row = replace(DEVICES["cuda"], providers=CPU.providers, memory="cpu")
        monkeypatch.setattr(devices, "DEVICES", {**DEVICES, "cuda": row})
        monkeypatch.setattr(placement, "DEVICES", {**DEVICES, "cuda": row})

    def test_both_parts_run_there_after_one_trial(self, monkeypatch: pytest.MonkeyPatch) -> None:
        both = placed("cuda", available=WITH_CUDA, system="linux")
        encoder, decoder = both.encoder(), both.decoder()
        assert encoder.backend == decoder.backend == f"onnxruntime {ORT} cuda"
        assert decoder.n_past == 0
        plain = placed("cpu").decoder()
        for one in (decoder, plain):
            one.extend(np.arange(30))
        np.testing.assert_array_equal(decoder.logits(), plain.logits())
        monkeypatch.setattr(placement, "_seconds", None)  # would fail if there were another
        both.encoder(), both.decoder()

    def test_a_decoder_is_measured_on_each_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement, "QUICK_S", 0.0)
        auto = placed(available=WITH_CUDA, system="linux")
        decoder = auto.decoder()
        found = auto.measured("onnx")
        assert set(found) == {"cpu", "cuda"}
        assert decoder.backend.endswith(f" {quickest(found)}")
        assert decoder.n_past == 0
        monkeypatch.setattr(Placement, "_measure", None)  # would fail if it were called again
        assert auto.decoder().backend == decoder.backend

    @pytest.mark.skipif(native.backend() is None, reason=MISSING)
    def test_one_that_is_computed_without_its_graph_is_measured_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is quicker than the graph that was measured, and the graphs of other devices are compared with it."""
        monkeypatch.setattr(placement, "QUICK_S", 0.0)
        auto = placed(available=WITH_CUDA, system="linux")
        auto.decoder()
        monkeypatch.delenv("EDGEVL_NATIVE")
        assert auto.measured("onnx") == {}
        backend = auto.decoder().backend
        assert backend == {"cpu": DECODER, "cuda": f"onnxruntime {ORT} cuda"}[quickest(auto.measured("onnx"))]
        assert set(auto.measured("onnx")) == {"cpu", "cuda"}


@pytest.mark.parametrize("device", ["cpu", pytest.param("openvino", marks=needs_openvino)])
def test_tiles_side_by_side_have_the_bits_of_one_at_a_time(device: str) -> None:
    """A tile that is stored may have been encoded either way, and by any number of threads."""
    tiles = np.random.default_rng(2).uniform(-1, 1, (5, 1, *tile().shape[1:])).astype(np.float32)
    single, double = (Placement(FOLDER, SPEC, device=device, threads=n).encoder() for n in (1, 2))
    assert double.n_at_once == (2 if device == "openvino" else 1)
    with ThreadPoolExecutor(2) as pool:
        beside = list(pool.map(partial(double.encode, n_at_once=2), tiles))
    for encoder in (single, double):
        np.testing.assert_array_equal(beside, [encoder.encode(one) for one in tiles])


@needs_openvino
class TestIntel:
    """Intel graphics and an NPU, which OpenVINO finds here by pretence; `tests/intel.py` says how."""

    @pytest.fixture(autouse=True)
    def system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement, "SYSTEM", "linux")
        monkeypatch.setattr(placement, "QUICK_S", 0.0)

    @pytest.fixture
    def core(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        return intel.pretend(monkeypatch, "GPU.0", "GPU.1", "NPU")

    def test_each_that_is_here_is_measured_once(self, core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        auto = placed()
        assert [row.name for row in auto.choices("vision")[1:] if row.openvino] == ["openvino"], "nobody has looked yet"
        chosen = auto.encoder()
        found = auto.measured("vision")
        assert {"cpu", "openvino", "openvino-gpu", "openvino-npu"} <= set(found)
        assert [target for target, _ in core.told] == ["CPU", "GPU", "NPU"]
        monkeypatch.setattr(openvino, "devices", None)  # would fail if it were asked again
        monkeypatch.setattr(Placement, "_measure", None)  # or measured
        assert placed().encoder().backend == chosen.backend
        placed("openvino-npu")

    def test_one_that_is_not_here_is_not_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        core, auto = intel.pretend(monkeypatch, "NPU"), placed()
        auto.encoder()
        assert "openvino-npu" in auto.measured("vision")
        assert "openvino-gpu" not in auto.measured("vision")
        assert [target for target, _ in core.told] == ["CPU", "NPU"]

    def test_a_start_that_has_no_use_for_openvino_does_not_load_it(
        self, core: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(placement, "QUICK_S", 60.0)
        monkeypatch.setattr(openvino, "devices", lambda: pytest.fail("was asked"))
        auto = placed()
        assert auto.encoder().backend == f"onnxruntime {ORT} cpu"
        assert auto.decoder().backend == DECODER

    def test_the_quickest_is_used(self, core: Any) -> None:
        placement.look("vision")
        auto = placed()
        assert kept.write(auto.key("vision"), {"cpu": 3.0, "openvino": 2.0, "openvino-gpu": 1.0, "openvino-npu": 1.5})
        assert auto.encoder().backend == f"openvino {openvino.version()} gpu"
        assert core.told == [("GPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f16"})]

    @pytest.mark.parametrize("target", ["gpu", "npu"])
    def test_one_can_be_asked_for(self, target: str, core: Any) -> None:
        both = placed(f"openvino-{target}")
        encoder = both.encoder()
        assert encoder.backend == f"openvino {openvino.version()} {target}"
        assert placement._cosine(encoder.encode(tile()), placed("cpu").encoder().encode(tile())) > 0.999
        assert both.decoder().backend == DECODER

    def test_one_that_was_added_since_is_found_by_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            intel.pretend(patch)
            with pytest.raises(BackendMissing, match=r"device openvino-npu is not here .* # and Intel's NPU driver"):
                placed("openvino-npu")
        intel.pretend(monkeypatch, "NPU")
        assert placed("openvino-npu").encoder().backend.endswith(" npu")

    @pytest.mark.parametrize("trouble", ["broken", "failing"])
    @pytest.mark.parametrize("device", ["auto", "openvino-gpu"])
    def test_one_that_cannot_compile_or_run_is_replaced_by_the_cpu(
        self, trouble: str, device: str, core: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(core, trouble, {"GPU", "NPU"})
        one = placed(device)
        encoder = one.encoder()
        assert not encoder.backend.endswith(("gpu", "npu"))
        assert not {"openvino-gpu", "openvino-npu"} & set(one.measured("vision"))
        [message] = caplog.messages
        why = {"broken": "OpenVINO cannot load it", "failing": "failed while running (device lost)"}
        assert why[trouble] in message
        assert message.endswith("; it is not used" if device == "auto" else "; the CPU is used")
        assert encoder.encode(tile()).shape == (SPEC.image.tokens_per_tile, SPEC.decoder.hidden_size)

    @pytest.mark.parametrize("device", ["auto", "openvino-gpu"])
    def test_one_that_ran_and_is_gone_since(
        self, device: str, core: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its driver has been taken away, say: that shows when it is opened, and not at the first tile."""
        placement.look("vision")
        one = placed(device)
        assert kept.write(one.key("vision", device), {"cpu": 2.0, "openvino-gpu": 1.0})
        monkeypatch.setattr(core, "broken", {"GPU"})
        assert one.encoder().backend == f"onnxruntime {ORT} cpu"
        [message] = caplog.messages
        assert message.endswith("; the CPU is used")

    def test_a_decoder_does_not_ask(self, core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(openvino, "devices", lambda: pytest.fail("was asked"))
        assert placement.look("onnx") == placement.look("gguf") == set()


@needs_openvino
class TestCompiled:
    def test_features_are_those_of_onnxruntime(self) -> None:
        plain, quick = (placed(name).encoder().encode(tile()) for name in ("cpu", "openvino"))
        assert placement._cosine(quick, plain) > 0.999

    def test_is_kept_on_disk_by_content(self, tmp_path: Path) -> None:
        disk = Disk(tmp_path / "store")
        placed("openvino", disk=disk).encoder().encode(tile())
        disk.flush()
        [entry] = disk.entries()
        assert entry.kind == "graphs"
        placed("openvino", disk=disk).encoder().encode(tile())
        disk.flush()
        assert len(list(disk.entries())) == 1
        other = replace(SPEC, files={**SPEC.files, SPEC.vision.file: replace(SPEC.files[SPEC.vision.file], sha256="0")})
        Placement(FOLDER, other, device="openvino", threads=1, disk=disk).encoder().encode(tile())
        disk.flush()
        assert len(list(disk.entries())) == 2

    @pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data[:-1] + b"\0", lambda data: b""])
    def test_if_damaged_it_is_compiled_again(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        disk = Disk(tmp_path / "store")
        wanted = placed("openvino", disk=disk).encoder().encode(tile())
        disk.flush()
        [entry] = disk.entries()
        entry.path.write_bytes(damage(entry.path.read_bytes()))
        np.testing.assert_array_equal(placed("openvino", disk=disk).encoder().encode(tile()), wanted)


def _broken(trouble: str) -> Any:
    class Broken:
        path, backend, n_at_once = FOLDER / SPEC.vision.file, "openvino 0 cpu", 1

        def __init__(self, *given: Any, **named: Any) -> None:
            if trouble == "raises":
                raise GraphError("vision.onnx: no")

        def require(self, inputs: set[str], outputs: set[str]) -> None: ...

        def run(self, feeds: Any, n_at_once: int) -> dict[str, Any]:
            shape = (1, SPEC.image.tokens_per_tile, SPEC.decoder.hidden_size)
            return {"image_features": np.random.default_rng(5).normal(size=shape).astype(np.float32)}

    return Broken


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        ({"cpu": 2.0, "openvino": 1.0}, "openvino"),
        ({"cpu": 1.0, "openvino": 2.0}, "cpu"),
        ({"cpu": 3.0, "openvino": 2.0, "cuda": 1.0}, "cuda"),
        ({"cpu": 1.0}, "cpu"),
        ({}, "cpu"),
        ({"openvino": -1.0, "cpu": 3}, "cpu"),
        ({"openvino": "quick", "cpu": 3}, "cpu"),
        ({"abacus": 1.0, "cpu": 3}, "cpu"),
    ],
)
def test_the_quickest_of_what_was_measured(seconds: Any, name: str) -> None:
    assert quickest(seconds) == name
