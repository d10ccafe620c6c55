"""What a forked process has of its parent's engines, but not the threads that compute in them.

To run such an engine waits for ever, and so does freeing it. What is opened in the child itself works.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

_open: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[Any] = []

SPAWN = "start processes by multiprocessing's spawn"
REMEDY = f"was opened before this process was forked; load the model in here, or {SPAWN}"


def watch(engine: Any) -> Any:
    """Return an engine, which the children of this process will keep, unused, from now on."""
    _open.add(engine)
    return engine


def is_inherited(engine: Any) -> bool:
    """Return whether it was opened before this process was forked."""
    return any(engine is one for one in _inherited)


def _inherit() -> None:
    _inherited.extend(_open)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_inherit)
