"""A thread of one's own, which an object may leave behind wherever it is freed."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

_Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]
END_S = 10.0
"""How long the end of the process waits for what is under way in such a thread."""


class OwnThread:
    """Makes calls one after another in one thread, until it is told to end; then it calls `at_end`, as the last.

    `end` takes no lock, so that it may be called by a finalizer. Those run wherever Python happens to collect garbage,
    such as in the middle of starting some thread: to shut down a ThreadPoolExecutor from there waits for itself.
    """

    def __init__(self, name: str, at_end: Callable[[], None]) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._calls, at_end), name=name, daemon=True)
        self._thread.start()
        _open.add(self)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function after whatever is still under way there; return its result or raise its error."""
        future: Future[Any] = Future()
        self._calls.put((future, function, arguments))
        return future.result()

    def end(self) -> None:
        """Let it end after what it has been given so far; does not wait."""
        self._calls.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout_s)


_open: weakref.WeakSet[OwnThread] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """At the end of the process, let no thread compute in a library that is being taken down."""
    threads = list(_open)
    for thread in threads:
        thread.end()
    for thread in threads:
        thread.join(END_S)


def _work(calls: SimpleQueue[_Call | None], at_end: Callable[[], None]) -> None:
    while (call := calls.get()) is not None:
        future, function, arguments = call
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            future.set_exception(error)
        del call, future, function, arguments  # which would be held until the next one comes
    at_end()
