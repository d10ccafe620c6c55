"""`edgevl chat` as a person at a terminal meets it: a mistake costs nothing but its line."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from edgevl.cli import answers, run
from edgevl.errors import GraphError
from tests.test_cli import QUESTION, SAMPLES, SHAPES

Talk = Callable[..., tuple[list[str], str]]


class Terminal(io.StringIO):
    """Lines that are typed."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    def talk(*lines: str, images: tuple[str, ...] = (SHAPES,), options: tuple[str, ...] = ()) -> tuple[list[str], str]:
        """Type `lines`; return the answers and what was said beside them."""
        monkeypatch.setattr(sys, "stdin", Terminal("\n".join(lines) + "\n"))
        assert run(["chat", *images, *options]) == 0
        out, err = capsys.readouterr()
        return out.splitlines(), err

    return talk


def test_a_refused_question_does_not_lose_the_pictures(talk: Talk) -> None:
    answers, said = talk("what's <image> here?", "/image nowhere.png", "/image", QUESTION)
    assert "reserves for images" in said
    assert "nowhere.png: no such file" in said
    assert "/image needs the name of a file" in said
    [answer] = answers
    assert "red circle" in answer


def test_reset_begins_with_the_images_of_the_command_line(talk: Talk) -> None:
    first, second = talk(QUESTION, f"/image {SAMPLES / 'relation.png'}", "/reset", QUESTION)[0]
    assert first == second


@pytest.mark.parametrize("line", ["/help", "/exit", "/Quit", "/IMAGE photo.png", "/reset!"])
def test_an_unknown_command_is_not_a_question(line: str, talk: Talk) -> None:
    answers, said = talk(line)
    assert answers == []
    assert f"{line.split()[0]}: no such command; there are /image, /reset, /quit" in said


def test_a_question_may_begin_with_a_path(talk: Talk) -> None:
    answers, said = talk("/tmp/x?", "/tmp is what?", options=("--max-tokens", "1", "--detail", "low"))
    assert len(answers) == 2
    assert "no such command" not in said


def test_the_mark_that_windows_begins_files_with_is_no_part_of_a_line(talk: Talk) -> None:
    plain, marked = talk(QUESTION)[0], talk(f"\ufeff{QUESTION}")[0]
    assert plain == marked
    assert "there are /image, /reset, /quit" in talk("\ufeff/help")[1]


def test_the_code_of_a_key_is_not_a_question(talk: Talk) -> None:
    answers, said = talk("\x1b[A")
    assert answers == []
    assert "error: this line holds a key's code, such as that of an arrow; type it again" in said


def test_a_file_that_was_dragged_into_the_terminal_is_in_quotes(talk: Talk, tmp_path: Path) -> None:
    shutil.copyfile(SHAPES, tmp_path / "my photo.png")
    for quote in "'\"":
        [answer], _ = talk(f"/image {quote}{tmp_path / 'my photo.png'}{quote}", QUESTION, images=())
        assert "red circle" in answer


def test_the_prompt_of_a_line_that_does_not_come_is_ended(talk: Talk) -> None:
    assert talk()[1].endswith("> \n")


def test_a_home_is_found_as_a_shell_finds_it(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copyfile(SHAPES, tmp_path / "my photo.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    said_back, said = talk(
        "/image ~/nowhere.png", "/image ~nobody-here/a.png", "/image ~/my photo.png", QUESTION, images=()
    )
    assert f"error: {tmp_path / 'nowhere.png'}: no such file" in said
    assert "error: ~nobody-here/a.png: the home folder that ~ stands for is not known here; give the whole path" in said
    [answer] = said_back
    assert "red circle" in answer


def test_a_bar_of_tiles_leaves_no_half_line_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for n_done, ends in ((1, "1/2 tiles\r\033[K"), (2, "2/2 tiles\r\033[K")):
        with suppress(GraphError), answers._tile_bar() as draw:
            assert draw is not None
            draw(n_done, 2)
            raise GraphError("no memory")
        said = capsys.readouterr().err
        assert said.endswith(ends), "words may stand where a whole bar was"
        assert said.count("\033[K") == 1


@pytest.mark.parametrize(
    ("question", "max_tokens", "remedy"),
    [
        (QUESTION, "2", "the answer was cut after 2 tokens; --max-tokens allows more\n"),
        ("what is red " * 640, "5000", "a shorter text or a new conversation leave more room\n"),
    ],
)
def test_an_answer_that_was_cut_says_what_gives_more(
    question: str, max_tokens: str, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run(["ask", SHAPES, question, "--detail", "low", "--max-tokens", max_tokens]) == 0
    assert capsys.readouterr().err.endswith(remedy)


def test_standard_input_brings_the_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["chat", "-"]) == 2
    assert "standard input brings the questions" in capsys.readouterr().err
    assert run(["ask", "-", "-", QUESTION]) == 2
    assert "can be read once" in capsys.readouterr().err
    assert run(["ask", SHAPES, "-"]) == 2
    assert "the last argument must be the question, but '-' stands for an image" in capsys.readouterr().err


def test_an_image_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "", QUESTION]) == 1
    assert capsys.readouterr().err == "error: the name of the image is empty; give a file, such as photo.jpg\n"
