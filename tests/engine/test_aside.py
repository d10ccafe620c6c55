"""llama.cpp in a process of its own: one that ends is an error with a remedy, all others are none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edgevl import GraphError
from edgevl.engine import aside

HERE = Path("model.gguf")


@pytest.mark.skipif(os.name == "nt", reason="without signals")
@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGILL", "SIGABRT"])
def test_a_process_that_is_ended_is_an_error_that_names_the_remedy(signal: str) -> None:
    with pytest.raises(GraphError) as caught:
        aside.run(HERE, f"import os, signal; os.kill(os.getpid(), signal.{signal})")
    message = str(caught.value)
    assert message.startswith("model.gguf: this build of llama.cpp ends the process here (-")
    assert "CXXFLAGS='-fno-tree-dse -fno-dse' pip install --force-reinstall" in message


@pytest.mark.parametrize("code", ["", "raise SystemExit(1)", "raise ValueError", "import no_such_module"])
def test_whatever_else_comes_of_it_is_no_matter(code: str) -> None:
    aside.run(HERE, code)


def test_it_gets_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model ü.gguf"
    aside.run(file, "import sys; open(sys.argv[1], 'w').close()")
    assert file.is_file()


def test_one_that_takes_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "TIMEOUT_S", 0.3)
    aside.run(HERE, "import time; time.sleep(60)")


def test_a_packed_application_does_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    assert aside.can_try()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not aside.can_try()


def test_a_real_model_is_fed(bundled_gguf_dir: Path) -> None:
    aside.run(bundled_gguf_dir / "decoder.gguf")
    assert aside.build()
