"""A thread of one's own, which an object may leave behind wherever it is freed."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from edgevl.engine import forks
from edgevl.errors import GraphError

_Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]
Calls = SimpleQueue[_Call | None]
"""Calls that wait for a thread, and None for each that is told to end."""
END_S = 10.0
"""How long the end of the process waits for what is under way in such a thread."""


class OwnThread:
    """Makes calls one after another in one thread, until it is told to end; then it calls `at_end`, as the last.

    Of several threads with the same `calls` whichever is free makes the next call, or ends.
    `end` takes no lock, so that it may be called by a finalizer. Those run wherever Python happens to collect garbage,
    such as in the middle of starting some thread: to shut down a ThreadPoolExecutor from there waits for itself.
    """

    def __init__(self, name: str, at_end: Callable[[], object] = lambda: None, calls: Calls | None = None) -> None:
        self._calls: Calls = SimpleQueue() if calls is None else calls
        self._thread = threading.Thread(target=_work, args=(self._calls, at_end), name=name, daemon=True)
        self._thread.start()
        _open.add(self)
        forks.watch(self)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function after whatever is still under way there; return its result or raise its error."""
        return self.submit(function, *arguments).result()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function called, unless its future is cancelled before; raise GraphError in a forked process."""
        if forks.is_inherited(self):
            raise GraphError(f"{self._thread.name}: {forks.REMEDY}")
        future: Future[Any] = Future()
        self._calls.put((future, function, arguments))
        return future

    def end(self) -> None:
        """Let it end after what it has been given so far; does not wait."""
        self._calls.put(None)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended, at most `timeout_s`."""
        self._thread.join(timeout_s)


@contextmanager
def ended(threads: Sequence[OwnThread]) -> Iterator[Sequence[OwnThread]]:
    """Have threads for the length of a `with` block, which waits for what they are at; a list may grow in it.

    All are told to end before one is waited for: with the same calls, any of them may be the one to hear it.
    A ThreadPoolExecutor would do so too, but takes nothing more once the main thread has ended.
    """
    try:
        yield threads
    finally:
        for thread in threads:
            thread.end()
        for thread in threads:
            thread.join()


_open: weakref.WeakSet[OwnThread] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """At the end of the process, let no thread compute in a library that is being taken down."""
    threads = list(_open)
    for thread in threads:
        thread.end()
    for thread in threads:
        thread.join(END_S)


def _work(calls: Calls, at_end: Callable[[], object]) -> None:
    while (call := calls.get()) is not None:
        future, function, arguments = call
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            future.set_exception(error)
        del call, future, function, arguments  # which would be held until the next one comes
    at_end()
