"""Nothing is reported to anyone: libraries that would do so are told not to before they are imported."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgevl.engine import openvino

SHAPES = Path(__file__).parents[1] / "models" / "samples" / "shapes.png"
ASKING = """
import sys, time
import edgevl

with edgevl.load(device=sys.argv[2], store=False) as vlm:
    print(vlm.ask(sys.argv[1], "what's here?"))
time.sleep(5)  # what is to be reported is sent from a thread
print(sorted(name for name in sys.modules if "telemetry" in name))
"""


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a proxy that refuses everything, and the first lines of what was asked of it."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(1000).decode(errors="replace").partition("\r")[0])

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("openvino", marks=pytest.mark.skipif(not openvino.is_present(), reason="needs openvino"))],
)
def test_no_library_reports_to_its_makers(device: str, tmp_path: Path) -> None:
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "no_proxy")}
    with proxy() as (address, asked):
        homes = {name: str(tmp_path) for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA")}
        environment = {**kept, **homes, **dict.fromkeys(names, address)}
        for name in [name for name in environment if name.startswith("XDG_")]:
            del environment[name]
        command = [sys.executable, "-c", ASKING, str(SHAPES), device]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    answer, modules = done.stdout.splitlines()
    assert answer == "a red circle, a blue square and a green triangle."
    assert asked == []
    assert "openvino_telemetry" not in modules
    made = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert [name for name in made if "edgevl" not in name] == []


def test_the_users_own_choice_stands() -> None:
    code = "import os, edgevl; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, wanted in ({"ORT_DISABLE_TELEMETRY": "0"}, "0"), ({}, "1"):
        environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        run = [sys.executable, "-c", code]
        done = subprocess.run(run, capture_output=True, text=True, env={**environment, **given}, check=True)
        assert done.stdout.strip() == wanted
