"""Whose turn it is: requests to one model wait for one another, but not for an answer that was left unfinished.

Nobody knows whether the rest of an answer will be read. Threads do not tell: those of a pool read a word each, of
whichever answer is next. So what counts is how long nobody has read on while another request waits.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from edgevl.engine.forks import SPAWN
from edgevl.errors import Busy, InputError

OWN_S = 2.0
"""After so long an answer counts as left by the thread that read it last, if that one waits now, or has ended."""
LEFT_S = 30.0
"""After so long it counts as left by whoever read it."""
SLICE_S = 0.05
"""How often who waits looks at what may end the wait."""


class _Thread:
    """Stands for a thread as long as that lives; the system gives the numbers of threads to later ones again."""


_local = threading.local()


def _this_thread() -> _Thread:
    if not hasattr(_local, "thread"):
        _local.thread = _Thread()
    thread: _Thread = _local.thread
    return thread


class Turn:
    """One request's time with a model, from when it is made until `end`, which every maker of one must call."""

    def __init__(self, close: Callable[[], Callable[[], None] | None] = lambda: None) -> None:
        """`close` returns what ends the request from outside while it pauses, or None, as a WeakMethod does."""
        self.is_over = False
        self._close = close
        self._process = os.getpid()
        self._going_on = threading.Lock()
        self._going_on.acquire()
        self.go_on()

    def go_on(self) -> None:
        """Note that this thread works on it, from now until it pauses; raise InputError in a forked process."""
        if self.is_of_parent:
            raise InputError("this answer was begun before this process was forked; ask again")
        self._reader = weakref.ref(_this_thread())
        self._paused_at: float | None = None

    def pause(self) -> None:
        """Note that nothing is done until somebody reads on."""
        self._paused_at = time.perf_counter()

    def end(self) -> None:
        """Let another one begin. Takes no lock: a finalizer may call this, wherever Python collects garbage."""
        self.is_over = True
        self._going_on.release()

    def wait(self) -> None:
        """Wait for its end, for a moment at most."""
        if self._going_on.acquire(timeout=SLICE_S):
            self._going_on.release()

    @property
    def is_of_this_thread(self) -> bool:
        """Whether this thread is the one that works on it, or did last."""
        return self._reader() is _this_thread()

    @property
    def is_of_parent(self) -> bool:
        """Whether this process was forked meanwhile: what computes it may be shared with the parent, or not in here."""
        return self._process != os.getpid()

    def check(self) -> None:
        """Raise Busy where this thread would wait for itself."""
        if self._paused_at is None and self.is_of_this_thread:
            raise Busy("this thread is at work on an answer of this model; ask again, or close the model, once it ends")

    def is_left(self, own_s: float, others_s: float) -> bool:
        """Return whether nobody has read on for long: for `own_s` if it was this thread's, or one's that has ended."""
        is_own = self.is_of_this_thread or self._reader() is None
        paused_at = self._paused_at
        return paused_at is not None and time.perf_counter() - paused_at >= (own_s if is_own else others_s)

    def break_off(self) -> None:
        """Close what is left of it, unless somebody has just read on."""
        close = self._close()
        if close is not None:
            with contextlib.suppress(Busy, ValueError):
                close()


class Turns:
    """Those of one model, one at a time. What is ended stays in the way of nobody, however it came to its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: weakref.ref[Turn] | None = None

    def take(self, turn: Turn, cancel: threading.Event | None = None) -> bool:
        """Wait until it is `turn`'s turn; return False once `cancel` is set before.

        Raises Busy where that would be never, or an answer has been left unfinished, and InputError in a forked
        process whose parent is in the middle of one.
        """
        while (other := self._try(turn)) is not None:
            if cancel is not None and cancel.is_set():
                return False
            other.check()
            if other.is_of_parent:
                raise InputError(
                    "this model was at work on an answer when this process was forked; load the model in here, "
                    f"or {SPAWN}"
                )
            if self._is_left(other, OWN_S, LEFT_S):
                raise Busy(
                    "an answer of this model was left unfinished; read that stream to its end or close() it, or let a "
                    "`with` block do so"
                )
            other.wait()
        return True

    def take_last(self, turn: Turn) -> None:
        """Wait for what is being read, and close an answer that was left, this thread's own at once; raises Busy."""
        while (other := self._try(turn)) is not None and not other.is_of_parent:
            other.check()
            if self._is_left(other, 0.0, OWN_S):
                other.break_off()
            other.wait()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Take a turn for the length of a `with` block; raises like `take`."""
        turn = Turn()
        try:
            self.take(turn)
            yield
        finally:
            turn.end()

    def _try(self, turn: Turn) -> Turn | None:
        """Begin a turn if there is none; return the one that there is."""
        with self._lock:
            other = None if self._current is None else self._current()
            if other is None or other.is_over:
                self._current, other = weakref.ref(turn), None
        return other

    @staticmethod
    def _is_left(turn: Turn, own_s: float, others_s: float) -> bool:
        """Return whether a turn is left. What holds it may be garbage, which is collected to find out."""
        if not turn.is_left(own_s, others_s):
            return False
        gc.collect()
        return not turn.is_over
