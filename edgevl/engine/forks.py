"""Engines in a forked process, which has them from its parent, but not the threads that compute in them.

To free one waits for ever, to run one does so with OpenVINO and with llama.cpp. What is opened in the child works.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, TypeVar

T = TypeVar("T")

_open: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[Any] = []

SPAWN = "start processes by multiprocessing's spawn"
REMEDY = f"was opened before this process was forked; load the model in here, or {SPAWN}"


def watch(engine: T) -> T:
    """Return an engine, which the children that this process is forked into from now on will never free."""
    _open.add(engine)
    return engine


def is_inherited(engine: object) -> bool:
    """Return whether it was opened before this process was forked."""
    return any(engine is one for one in _inherited)


def _inherit() -> None:
    _inherited.extend(_open)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_inherit)
