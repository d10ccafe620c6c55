"""Every error that edgevl raises on purpose, as one tree.

    EdgeVLError
    ├─ ModelError    ModelNotFound · ManifestError · UnsupportedFamily · ChecksumMismatch · ExportError · DownloadError
    ├─ InputError    ImageError · PromptError · ContextOverflow · Busy
    └─ BackendError  BackendMissing · GraphError

Each message is one line of plain English: what is wrong, where, and what to do about it.
"""

from __future__ import annotations


class EdgeVLError(Exception):
    """Base of all errors that edgevl raises on purpose."""


class ModelError(EdgeVLError):
    """Something is wrong with a model folder or checkpoint."""


class ModelNotFound(ModelError):
    """No model by this name or at this path."""


class ManifestError(ModelError):
    """`edgevl.json` is missing, malformed, or of another version; the message names file and key."""


class UnsupportedFamily(ModelError):
    """The model belongs to a family that this version does not know."""


class ChecksumMismatch(ModelError):
    """A model file is missing, has another length, or its SHA-256 differs from the manifest's."""


class ExportError(ModelError):
    """A checkpoint cannot be exported; the message names the file and the remedy."""


class DownloadError(ModelError):
    """A model cannot be fetched: no network, no such repository, not allowed, or no room."""


class InputError(EdgeVLError):
    """The caller's image, messages or parameters cannot be used."""


class ImageError(InputError):
    """The image cannot be read or is over a limit."""


class PromptError(InputError):
    """The messages cannot be turned into a prompt."""


class ContextOverflow(InputError):
    """The prompt does not fit into the model's context.

    `n_tokens` is the prompt's length, `n_context` what fits; both in tokens.
    """

    def __init__(self, message: str, *, n_tokens: int, n_context: int) -> None:
        super().__init__(message)
        self.n_tokens = n_tokens
        self.n_context = n_context


class Busy(InputError):
    """A model is asked while an answer of it was left unfinished, or a stream while it is at work."""


class BackendError(EdgeVLError):
    """A library or device that runs graphs is missing or failed."""


class BackendMissing(BackendError):
    """An optional part is not installed; the message gives the one command that adds it."""


class GraphError(BackendError):
    """A graph cannot be loaded or run; the message names graph, input, what was expected and got."""
