"""Requests that wait for one another, and answers that somebody began to read and left."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import edgevl
from edgevl import turns
from edgevl.pipeline import Stream
from edgevl.turns import Turn, Turns

SHAPES = Path(__file__).parents[1] / "models" / "samples" / "shapes.png"
QUESTION = "what's here?"
ANSWER = "a red circle, a blue square and a green triangle."


@pytest.fixture
def vlm() -> Iterator[edgevl.VLM]:
    with edgevl.load(store=False, threads=1) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let answers count as left after a moment."""
    monkeypatch.setattr(turns, "OWN_S", 0.1)
    monkeypatch.setattr(turns, "LEFT_S", 0.2)


def in_thread(do: Callable[[], Any]) -> Any:
    """Return what is done in a thread that ends then, or its error."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(do)
        return future.exception(timeout=60) or future.result()


def left(vlm: edgevl.VLM) -> Stream:
    """Return a stream of which this thread has read one word."""
    stream = vlm.stream(SHAPES, QUESTION)
    next(stream)
    return stream


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_an_error_holds_is_no_reason_to_wait_for_ever(vlm: edgevl.VLM) -> None:
    def serve() -> None:
        stream = vlm.stream(SHAPES, QUESTION)
        for _ in stream:
            raise BrokenPipeError

    error = in_thread(serve)  # whose frames hold the stream
    with pytest.raises(edgevl.Busy, match=r"left unfinished; read that stream to its end or close\(\) it"):
        vlm.ask(SHAPES, QUESTION)
    assert isinstance(error, BrokenPipeError)
    assert isinstance(in_thread(lambda: vlm.ask(SHAPES, QUESTION)), edgevl.Busy)
    del error
    gc.collect()
    assert vlm.ask(SHAPES, QUESTION).text == ANSWER


@pytest.mark.usefixtures("impatient")
def test_a_stream_that_only_garbage_holds_frees_the_model(vlm: edgevl.VLM) -> None:
    class Window:
        def __init__(self) -> None:
            self.stream = vlm.stream(SHAPES, QUESTION, on_tile=self.progress)  # which holds the window
            next(self.stream)

        def progress(self, done: int, total: int) -> None: ...

    gc.disable()
    try:
        in_thread(lambda: str(Window()))
        assert vlm.ask(SHAPES, QUESTION).text == ANSWER
    finally:
        gc.enable()


@pytest.mark.usefixtures("impatient")
def test_closing_a_model_closes_what_another_thread_left() -> None:
    vlm = edgevl.load(store=False, threads=1)
    streams: list[Stream] = []
    with ThreadPoolExecutor(1) as pool:  # whose thread lives on
        pool.submit(lambda: streams.append(left(vlm))).result()
        vlm.close()
    with pytest.raises(edgevl.InputError, match="broken off"):
        streams[0].finish()


def test_closing_a_model_waits_for_what_another_thread_reads() -> None:
    vlm = edgevl.load(store=False, threads=1)
    begun, texts = threading.Event(), []

    def read() -> None:
        with vlm.stream(SHAPES, QUESTION) as stream:
            for delta in stream:
                texts.append(delta.text)
                begun.set()
                time.sleep(0.02)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        assert begun.wait(60)
        vlm.close()
        reading.result(timeout=60)
    assert "".join(texts) == ANSWER


def test_the_threads_of_a_pool_may_read_in_turn(vlm: edgevl.VLM) -> None:
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        stream = vlm.stream(SHAPES, QUESTION)
        first.submit(next, stream).result()
        other = first.submit(lambda: vlm.ask(SHAPES, QUESTION).text)  # by the thread that has read last
        texts = []
        while (delta := second.submit(next, stream, None).result()) is not None:
            texts.append(delta.text)
        assert other.result(timeout=60) == ANSWER
        assert ANSWER.endswith("".join(texts))


def test_a_later_thread_is_not_taken_for_one_that_has_ended(vlm: edgevl.VLM) -> None:
    streams: list[Stream] = []

    def ask() -> str:
        threading.Timer(0.2, streams[0].finish).start()
        return vlm.ask(SHAPES, QUESTION).text

    in_thread(lambda: streams.append(left(vlm)))
    assert in_thread(ask) == ANSWER
    assert streams[0].answer.text == ANSWER


def test_a_question_that_waits_for_its_turn_can_be_cancelled(vlm: edgevl.VLM) -> None:
    cancel = threading.Event()
    stream = left(vlm)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(vlm.ask, SHAPES, QUESTION, cancel=cancel)
        time.sleep(0.1)
        assert not waiting.done()
        cancel.set()
        answer = waiting.result(timeout=20)
    assert (answer.finish_reason, answer.text, answer.images[0].n_encoded) == ("cancelled", "", 0)
    assert stream.finish().text == ANSWER


def test_ending_one_stream_ends_no_other_with_the_same_event(vlm: edgevl.VLM) -> None:
    quitting = threading.Event()
    chat = vlm.chat(cancel=quitting)
    stream = chat.stream(QUESTION, SHAPES)
    stream.cancel()
    assert stream.finish().finish_reason == "cancelled"
    assert not quitting.is_set()
    assert chat.ask(QUESTION, SHAPES).text == ANSWER
    quitting.set()
    assert chat.ask(QUESTION).finish_reason == "cancelled"


def test_anything_that_tells_whether_it_is_set_cancels(vlm: edgevl.VLM) -> None:
    class Flag:
        def is_set(self) -> bool:
            return False

    stream = vlm.stream(SHAPES, QUESTION, cancel=Flag())  # type: ignore[arg-type]
    stream.cancel()
    assert stream.finish().finish_reason == "cancelled"


FORKING = """
import os, signal, sys, threading, warnings
import edgevl

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads: it is what is tried
vlm = edgevl.load(store=False, threads=1, device="cpu")
begun, forked = threading.Event(), threading.Event()


def read():
    with vlm.stream(sys.argv[1], "what's here?") as stream:
        next(stream)
        begun.set()
        forked.wait()
        stream.finish()


thread = threading.Thread(target=read)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(40)
    try:
        vlm.ask(sys.argv[1], "what's here?")
    except edgevl.InputError as error:
        print(error, flush=True)
    vlm.close()
    with edgevl.load(store=False, threads=1, device="cpu") as own:
        print(own.ask(sys.argv[1], "what's here?"), flush=True)
    os._exit(5)
forked.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no forks")
def test_a_process_that_was_forked_in_the_middle_of_an_answer_is_told_so() -> None:
    command = [sys.executable, "-c", FORKING, str(SHAPES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said, answer, status = done.stdout.splitlines()
    assert said.startswith("this model was at work on an answer when this process was forked; load the model in here")
    assert (answer, status) == (ANSWER, "5")


def test_a_turn_that_nobody_holds_any_more_is_over() -> None:
    line = Turns()
    assert line.take(Turn())  # forgotten without its end
    turn = Turn()
    assert line.take(turn)
    turn.end()
    with line.one():
        pass


def test_turns_come_one_at_a_time() -> None:
    line, inside = Turns(), []

    def work() -> None:
        with line.one():
            inside.append(1)
            time.sleep(0.005)
            assert len(inside) == 1
            inside.clear()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work) for _ in range(40)]:
            future.result(timeout=60)
