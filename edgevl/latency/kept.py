"""Profiles on disk: see `edgevl.store.kept`."""

from __future__ import annotations

from edgevl.latency.profile import Profile
from edgevl.placement import installed
from edgevl.store import kept
from edgevl.store.kept import Key, folder, forget

__all__ = ["Key", "folder", "forget", "key_of", "read", "write"]

_ENGINES = ("openvino", "llama.cpp")
"""What may run a model beside onnxruntime once it is installed, if it is quicker."""


def key_of(model_id: str, *, device: str, threads: int | None) -> Key:
    """Return the key of a profile, from the model's id, `device` and `threads`."""
    versions = {engine: installed(engine) or "none" for engine in _ENGINES}
    return {**kept.key_of("profile", model_id, device=device, threads=threads), **versions}


def read(key: Key) -> Profile | None:
    """Return the profile kept under `key`; None if there is none, or none that can be read."""
    raw = kept.read(key)
    try:
        return None if raw is None else Profile.from_dict(raw)
    except (ValueError, LookupError, TypeError):
        return None


def write(key: Key, profile: Profile) -> bool:
    """Keep a profile; return whether that could be done."""
    return kept.write(key, profile.to_dict())
