"""What may import what, and other rules that hold for every file: each is a function, tested on small sources below."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import edgevl
import edgevl.errors

ROOT = Path(__file__).parents[1]

LAYERS = (
    # lowest first; an import may only point to a lower layer, or stay within its own
    "errors",
    "machine",
    "types",
    "model",
    "image",
    "engine",
    "store",
    "generate",
    "steps",
    "placement",
    "loaded",
    "latency",
    "request",
    "turns",
    "probe",
    "pipeline",
    "chat",
    "",  # `import edgevl`: the public names
    "verify",
    "bench",
    "eval",
    "export",
    "cli",
    "__main__",
)
UPWARD = {("pipeline", "chat")}  # VLM.chat() makes a Chat, and imports it when it is called
OWNERS = {
    # library: the one module of the runtime that may import it
    "onnxruntime": "edgevl.engine.graph",
    "llama_cpp": "edgevl.engine.gguf",
    "openvino": "edgevl.engine.openvino",
    "PIL": "edgevl.image.read",
    "pillow_heif": "edgevl.image.read",
    "pillow_avif": "edgevl.image.read",
    "huggingface_hub": "edgevl.model.hub",
    "pyarrow": "edgevl.eval.tables",
    **dict.fromkeys(
        ("aiohttp", "ftplib", "http", "httpx", "requests", "socket", "ssl", "urllib.request", "urllib3"),
        "edgevl.model.hub",
    ),
}
EXPORT_ONLY = ("onnx", "onnxruntime_genai", "onnxscript", "optimum", "safetensors", "torch", "transformers")
UNSAFE_MODULES = ("cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve")
UNSAFE_CALLS = ("eval", "exec", "__import__")
FAMILY_NAMES = ("idefics3", "smolvlm", "edgevl-tiny", "llava", "internvl")
MAX_FILE_BYTES = 25_000_000
MAX_IMPORT_S = 0.050


@dataclass(frozen=True)
class Import:
    """One import statement's target: its dotted name, and the line."""

    name: str
    line: int


def imports(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    """Return what `source`, the text of `module`, imports, anywhere in it.

    `from a import b` counts as a.b, relative imports are resolved, and so are import_module("...") and
    __import__("...") with a text that stands there.
    """
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            found += [Import(f"{base}.{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                found.append(Import(name.value, node.lineno))
    return found


def wrong_directions(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return the imports of `source` that point upward, as text."""
    own = _layer(module)
    return [
        f"{module}:{item.line} imports {item.name}"
        for item in imports(source, module, is_package=is_package)
        if item.name.split(".")[0] == "edgevl"
        and LAYERS.index(_layer(item.name)) > LAYERS.index(own)
        and (own, _layer(item.name)) not in UPWARD
    ]


def wrong_owners(source: str, module: str) -> list[str]:
    """Return the libraries that `source` imports though another module owns them, or none may have them."""
    rules = OWNERS | dict.fromkeys(EXPORT_ONLY, "edgevl.export")
    return [
        f"{module}:{item.line} imports {item.name}, which only {owner} may"
        for item in imports(source, module)
        for library, owner in rules.items()
        if f"{item.name}.".startswith(f"{library}.") and not f"{module}.".startswith(f"{owner}.")
    ]


def unsafe(source: str, module: str) -> list[str]:
    """Return what in `source` can run code that comes as data."""
    found = [
        f"{module}:{item.line} imports {item.name}"
        for item in imports(source, module)
        if item.name.split(".")[0] in UNSAFE_MODULES
    ]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
            found.append(f"{module}:{node.lineno} calls {node.func.id}")
        for keyword in node.keywords:
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg in ("allow_pickle", "trust_remote_code", "shell") and is_true:
                found.append(f"{module}:{node.lineno} passes {keyword.arg}=True")
    return found


def cores(source: str, module: str) -> list[str]:
    """Return where `source` makes a Core of OpenVINO's itself: `core_of` has the process's only one, and says why."""
    return [
        f"{module}:{node.lineno} makes a Core"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _called(node) == "Core"
    ]


def family_names(source: str, module: str) -> list[str]:
    """Return the lines of `source` that name a family, in a string or as an identifier; prose may."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if id(node) in prose:
            continue
        texts = [value for _, value in ast.iter_fields(node) if isinstance(value, str)]
        found += [
            f"{module}:{node.lineno} names {name}"  # type: ignore[attr-defined]
            for name in FAMILY_NAMES
            if any(name in text.lower() for text in texts)
        ]
    return found


def undocumented(source: str, module: str) -> list[str]:
    """Return the public modules, classes, functions and methods of `source` without a docstring."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) or not tree.body else [module]

    def look(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                if child.name.startswith("_"):
                    continue
                if not ast.get_docstring(child):
                    found.append(f"{prefix}.{child.name}")
                if isinstance(child, ast.ClassDef):
                    look(child, f"{prefix}.{child.name}")

    look(tree, module)
    return found


def machine_paths(text: str) -> list[str]:
    """Return absolute paths of somebody's machine in `text`."""
    pattern = r"(?<![\w.$}*~-])/(?:work|root|farm|home/\w+|Users/\w+)(?:/\w*|\b)|\b[C-Z]:\\Users\\\w+"
    return [match.group() for match in re.finditer(pattern, text)]


def public_order(name: str) -> tuple[int, str]:
    """Order names as ruff sorts `__all__`: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _layer(name: str) -> str:
    """Return the layer of a dotted name under edgevl; a name that is no module is one of the public names."""
    part = name.split(".")[1] if "." in name else ""
    return part if part in LAYERS else ""


def _sources() -> Iterator[tuple[str, Path, str]]:
    """Yield (dotted name, path, text) of every file of the runtime and the export."""
    for top, package in (("edgevl", "edgevl"), ("export", "edgevl.export")):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT / top).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            yield name, path, path.read_text(encoding="utf-8")


SOURCES = list(_sources())
RUNTIME = [source for source in SOURCES if not source[0].startswith("edgevl.export")]


def _listed(*options: str) -> list[str]:
    """Return a line for every file under version control, as `git ls-files` gives it; skips outside a clone."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git clone, so there are no tracked files to look at")
    command = [git, "ls-files", "-z", *options]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    return [line for line in listed.decode().split("\0") if line]


def _tracked() -> list[Path]:
    """Return the files under version control; skips outside a clone."""
    return [path for path in (ROOT / name for name in _listed()) if path.is_file()]


class TestProject:
    def test_every_module_has_a_layer(self) -> None:
        names = {name.split(".")[1] for name, _, _ in SOURCES if "." in name}
        assert names == set(LAYERS) - {""}

    def test_git_for_windows_changes_no_byte(self) -> None:
        assert [line for line in _listed("--eol") if "attr/-text" not in line] == []

    def test_imports_point_one_way(self) -> None:
        found = [
            wrong
            for name, path, source in SOURCES
            for wrong in wrong_directions(source, name, is_package=path.name == "__init__.py")
        ]
        assert found == []

    def test_each_heavy_library_has_one_importer(self) -> None:
        assert [wrong for name, _, source in RUNTIME for wrong in wrong_owners(source, name)] == []

    def test_each_owner_uses_what_it_owns(self) -> None:
        used = {(item.name.split(".")[0], name) for name, _, source in RUNTIME for item in imports(source, name)}
        assert ("onnxruntime", "edgevl.engine.graph") in used
        assert ("PIL", "edgevl.image.read") in used
        assert ("llama_cpp", "edgevl.engine.gguf") in used

    def test_no_data_is_run_as_code(self) -> None:
        assert [wrong for name, _, source in SOURCES for wrong in unsafe(source, name)] == []

    def test_a_process_has_one_core_of_openvinos(self) -> None:
        folders = ("benchmarks", "edgevl", "export", "models", "tests")
        paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
        found = [cores(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()) for path in paths]
        assert [wrong for each in found for wrong in each] == []

    def test_families_are_named_in_their_table_alone(self) -> None:
        found = [
            wrong
            for name, _, source in RUNTIME
            if name != "edgevl.model.families"
            for wrong in family_names(source, name)
        ]
        bundled = [wrong for wrong in found if wrong.startswith("edgevl.model.hub:")]
        assert len(bundled) == 1
        assert bundled[0].endswith("names edgevl-tiny")
        assert found == bundled

    def test_what_is_public_is_documented(self) -> None:
        assert [name for name, _, source in SOURCES for name in undocumented(source, name)] == []

    def test_no_tracked_file_names_a_machine(self) -> None:
        found = []
        for path in _tracked():
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # not text
            if path != Path(__file__):
                found += [f"{path.relative_to(ROOT)}: {wrong}" for wrong in machine_paths(text)]
        assert found == []

    def test_no_tracked_file_is_large(self) -> None:
        sizes = {path.relative_to(ROOT): path.stat().st_size for path in _tracked()}
        assert {path: size for path, size in sizes.items() if size > MAX_FILE_BYTES} == {}


class TestPublicNames:
    def test_all_is_sorted_and_without_repeats(self) -> None:
        assert edgevl.__all__ == sorted(set(edgevl.__all__), key=public_order)

    def test_all_is_what_type_checkers_see(self) -> None:
        tree = ast.parse((ROOT / "edgevl" / "__init__.py").read_text(encoding="utf-8"))
        [guarded] = [node for node in tree.body if isinstance(node, ast.If)]
        seen = [alias.name for node in ast.walk(guarded) if isinstance(node, ast.ImportFrom) for alias in node.names]
        assert sorted(seen) == sorted(edgevl.__all__)

    def test_each_name_can_be_imported_and_is_the_homes_own(self) -> None:
        for name in edgevl.__all__:
            found = getattr(edgevl, name)
            assert getattr(importlib.import_module(found.__module__), name) is found
            assert found.__doc__

    def test_every_error_is_public(self) -> None:
        errors = {name for name, value in vars(edgevl.errors).items() if isinstance(value, type)}
        assert errors <= set(edgevl.__all__)

    def test_dir_lists_them(self) -> None:
        assert set(edgevl.__all__) < set(dir(edgevl))

    def test_another_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError) as caught:
            edgevl.nothing  # noqa: B018
        assert str(caught.value) == "module 'edgevl' has no attribute 'nothing'"

    def test_the_version_is_the_packages(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert edgevl.__version__ == project["version"]
        changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        assert f"## {edgevl.__version__}" in changes

    def test_click_is_new_enough_for_types_of_ones_own(self) -> None:
        """Its ParamType takes a type in brackets from 8.4 on; with less, most commands end with a traceback."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        [lowest] = [need.removeprefix("click>=") for need in project["dependencies"] if need.startswith("click")]
        assert tuple(map(int, lowest.split("."))) >= (8, 4)


class TestImport:
    HEAVY = ("PIL", "click", "huggingface_hub", "jinja2", "llama_cpp", "numpy", "onnxruntime", "tokenizers", "torch")

    def python(self, code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        return done.stdout.strip()

    def test_import_edgevl_loads_nothing_heavy(self) -> None:
        code = f"import sys, edgevl; print(sorted(set({self.HEAVY}) & set(sys.modules)))"
        assert self.python(code) == "[]"

    def test_the_command_s_entry_point_loads_next_to_nothing(self) -> None:
        """What Ctrl-C finds before `main` has begun ends with a traceback."""
        late = {"argparse", "click", "importlib", "logging", "pathlib", "threading", "typing"}
        code = f"import sys; had = set(sys.modules); import edgevl.cli; print({late} & set(sys.modules) - had or '')"
        assert self.python(code) == ""

    def test_help_loads_nothing_heavy(self) -> None:
        heavy = tuple(name for name in self.HEAVY if name != "click")
        code = f"import sys, edgevl.cli; edgevl.cli.run(['--version']); print(sorted(set({heavy}) & set(sys.modules)))"
        assert self.python(code).splitlines()[-1] == "[]"

    def test_import_edgevl_is_quick(self) -> None:
        code = "import time; t = time.perf_counter(); import edgevl; print(time.perf_counter() - t)"
        medians = []
        for _ in range(4):  # another program may have been busy: the best of four medians counts
            medians.append(statistics.median(float(self.python(code)) for _ in range(5)))
            if medians[-1] < MAX_IMPORT_S:
                return
        pytest.fail(f"import edgevl takes {min(medians):.3f} s, allowed are {MAX_IMPORT_S:.3f} s")


class TestRules:
    """Every rule can fail."""

    def test_every_form_of_import_is_seen(self) -> None:
        source = """
import a.b, c as d
from e import f
from e.g import h as i
def later():
    from . import sibling
    from .sibling import name
    from ..other import name
    from .. import other
    import_module("j.k")
    importlib.import_module("l")
    __import__("m")
    import_module(unknown)
if TYPE_CHECKING:
    import n
"""
        names = {item.name for item in imports(source, "edgevl.x.y")}
        assert names == {
            *("a.b", "c", "e.f", "e.g.h", "j.k", "l", "m", "n"),
            *("edgevl.other", "edgevl.other.name", "edgevl.x.sibling", "edgevl.x.sibling.name"),
        }

    def test_relative_imports_of_a_package_begin_in_it(self) -> None:
        assert [item.name for item in imports("from . import a", "edgevl.x", is_package=True)] == ["edgevl.x.a"]
        assert [item.name for item in imports("from .. import a", "edgevl.x", is_package=True)] == ["edgevl.a"]

    @pytest.mark.parametrize(
        ("source", "module"),
        [
            ("import edgevl.pipeline", "edgevl.engine.graph"),
            ("from edgevl import chat", "edgevl.request"),
            ("from edgevl.cli import answers", "edgevl.chat"),
            ("from ..engine import graph", "edgevl.image.read"),
            ("def f():\n    from edgevl.types import Message", "edgevl.errors"),
            ("import edgevl", "edgevl.loaded"),
            ("from edgevl import load", "edgevl.loaded"),
            ("from edgevl.image import read", "edgevl.model.prompt"),
            ("import_module('edgevl.export')", "edgevl.pipeline"),
            ("from edgevl.cli import run", "edgevl.export.build"),
            ("from edgevl.pipeline import VLM", "edgevl.chat"),
        ],
    )
    def test_direction(self, source: str, module: str) -> None:
        allowed = module == "edgevl.chat" and "pipeline" in source
        assert bool(wrong_directions(source, module)) != allowed

    @pytest.mark.parametrize(
        ("source", "is_wrong"),
        [
            ("core = openvino.Core()", True),
            ("from openvino import Core\ngraph = Core().read_model(path)", True),
            ("core = core_of(openvino.Core)", False),
        ],
    )
    def test_cores(self, source: str, is_wrong: bool) -> None:
        assert bool(cores(source, "benchmarks.peers.openvino")) == is_wrong

    def test_only_the_named_exception_points_upward(self) -> None:
        assert wrong_directions("from edgevl.chat import Chat", "edgevl.pipeline") == []
        assert wrong_directions("from edgevl.verify import verify", "edgevl.pipeline") != []
        assert wrong_directions("from edgevl.engine.kv import KVCache", "edgevl.engine.decoder") == []

    @pytest.mark.parametrize(
        ("source", "module", "is_wrong"),
        [
            ("import onnxruntime as ort", "edgevl.engine.decoder", True),
            ("import onnxruntime as ort", "edgevl.engine.graph", False),
            ("from PIL import Image", "edgevl.image.pixels", True),
            ("import PIL.Image", "edgevl.cli.images", True),
            ("import_module('PIL.PngImagePlugin')", "edgevl.image.kinds", True),
            ("from PIL import Image", "edgevl.image.read", False),
            ("from urllib import request", "edgevl.request", True),
            ("import urllib.request", "edgevl.request", True),
            ("import urllib.parse", "edgevl.request", False),
            ("def f():\n    import socket", "edgevl.store.memory", True),
            ("import http.client", "edgevl.verify", True),
            ("import huggingface_hub", "edgevl.cli.models", True),
            ("import huggingface_hub", "edgevl.model.hub", False),
            ("import torch", "edgevl.engine.graph", True),
            ("import torch.nn", "edgevl.export.vision", False),
            ("from transformers import AutoModel", "edgevl.pipeline", True),
            ("import onnx", "edgevl.engine.graph", True),
            ("import optimum", "edgevl.model.hub", True),
            ("import torchlight", "edgevl.pipeline", False),
        ],
    )
    def test_owner(self, source: str, module: str, is_wrong: bool) -> None:
        assert bool(wrong_owners(source, module)) == is_wrong

    @pytest.mark.parametrize(
        ("source", "is_wrong"),
        [
            ("import pickle", True),
            ("from pickle import loads", True),
            ("eval('1')", True),
            ("exec(text)", True),
            ("np.load(path, allow_pickle=True)", True),
            ("AutoModel.from_pretrained(path, trust_remote_code=True)", True),
            ("subprocess.run(line, shell=True)", True),
            ("np.load(path, allow_pickle=False)", False),
            ("re.compile('a'); model.eval()", False),
        ],
    )
    def test_unsafe(self, source: str, is_wrong: bool) -> None:
        assert bool(unsafe(source, "edgevl.x")) == is_wrong

    @pytest.mark.parametrize(
        ("source", "is_wrong"),
        [
            ("if family == 'smolvlm': pass", True),
            ("NAME = f'{x}-Idefics3'", True),
            ("def prepare_smolvlm(): pass", True),
            ("{'edgevl-tiny': 1}", True),
            ('"""As in SmolVLM."""\nx = 1  # idefics3', False),
            ("def f():\n    '''Source: models/idefics3.'''", False),
        ],
    )
    def test_family_names(self, source: str, is_wrong: bool) -> None:
        assert bool(family_names(source, "edgevl.x")) == is_wrong

    def test_undocumented(self) -> None:
        source = """
class A:
    def method(self): ...
    def _private(self): ...
    def __init__(self): ...
def function():
    def inner(): ...
class _B:
    def method(self): ...
"""
        assert undocumented(source, "m") == ["m", "m.A", "m.A.method", "m.function"]
        assert undocumented("'''Doc.'''\ndef f():\n    '''Doc.'''", "m") == []
        assert undocumented("", "m") == []

    @pytest.mark.parametrize(
        ("text", "is_wrong"),
        [
            ("open('/work/" + "main/a')", True),
            ("see /root" + "/x", True),
            ("/home/" + "someone/models", True),
            ("C:\\Users" + "\\someone", True),
            ("the network/work/flow, at/root level", False),
            ("~/.local/share, $HOME/work/, ../shared", False),
        ],
    )
    def test_machine_paths(self, text: str, is_wrong: bool) -> None:
        assert bool(machine_paths(text)) == is_wrong

    def test_public_order(self) -> None:
        assert sorted(["load", "Answer", "VLM"], key=public_order) == ["VLM", "Answer", "load"]
