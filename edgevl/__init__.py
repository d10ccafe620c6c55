"""Ask about pictures on your own machine: an on-device runtime for quantized vision-language models.

    import edgevl

    with edgevl.load() as vlm:
        print(vlm.ask("photo.jpg", "what's here?"))

Importing this package is cheap: onnxruntime, Pillow and the rest are imported by the first `load`.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported, which else reports to its makers

TYPE_CHECKING = False  # what type checkers take for true; `typing` takes longer to import than all that is here

if TYPE_CHECKING:
    import typing

    from edgevl.chat import Chat
    from edgevl.errors import (
        BackendError,
        BackendMissing,
        Busy,
        ChecksumMismatch,
        ContextOverflow,
        DownloadError,
        EdgeVLError,
        ExportError,
        GraphError,
        ImageError,
        InputError,
        ManifestError,
        ModelError,
        ModelNotFound,
        PromptError,
        UnsupportedFamily,
    )
    from edgevl.pipeline import VLM, Stream, load
    from edgevl.types import (
        Answer,
        Delta,
        Features,
        ImagePart,
        Message,
        SamplingParams,
        TextPart,
        Timings,
        Usage,
    )

__version__ = "0.1.0"

_HOMES = {
    "edgevl.chat": ("Chat",),
    "edgevl.errors": (
        "BackendError",
        "BackendMissing",
        "Busy",
        "ChecksumMismatch",
        "ContextOverflow",
        "DownloadError",
        "EdgeVLError",
        "ExportError",
        "GraphError",
        "ImageError",
        "InputError",
        "ManifestError",
        "ModelError",
        "ModelNotFound",
        "PromptError",
        "UnsupportedFamily",
    ),
    "edgevl.pipeline": ("VLM", "Stream", "load"),
    "edgevl.types": (
        "Answer",
        "Delta",
        "Features",
        "ImagePart",
        "Message",
        "SamplingParams",
        "TextPart",
        "Timings",
        "Usage",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "VLM",
    "Answer",
    "BackendError",
    "BackendMissing",
    "Busy",
    "Chat",
    "ChecksumMismatch",
    "ContextOverflow",
    "Delta",
    "DownloadError",
    "EdgeVLError",
    "ExportError",
    "Features",
    "GraphError",
    "ImageError",
    "ImagePart",
    "InputError",
    "ManifestError",
    "Message",
    "ModelError",
    "ModelNotFound",
    "PromptError",
    "SamplingParams",
    "Stream",
    "TextPart",
    "Timings",
    "UnsupportedFamily",
    "Usage",
    "load",
]


def __getattr__(name: str) -> typing.Any:
    from importlib import import_module

    if name not in _HOME_OF:
        raise AttributeError(f"module 'edgevl' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
