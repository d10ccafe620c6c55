"""Engines in a forked process, which has them from its parent, but not the threads that compute in them.

To free one waits for ever, to run one does so with OpenVINO and with llama.cpp, and their libraries wait, abort or
crash when the process ends. What is opened in the child works.
"""

from __future__ import annotations

import ctypes
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
    for engine in _open:
        _inherited.append(engine)
        # Counted once more than it is named: the interpreter's end clears this module, and would free what is in it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    if _inherited:
        _end_without_handlers()


def _end_without_handlers() -> None:
    """Have this process end with what was registered from here on, and none of its parent's handlers.

    Python's own have run by then. Libraries of C other than glibc know no handler that is told the exit status: there
    a child has to end by `os._exit`, as those of multiprocessing do.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)
        libc.on_exit(libc.fcloseall, None)  # the last one registered is the first to run


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_inherit)
