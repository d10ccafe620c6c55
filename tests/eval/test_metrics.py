"""Every metric against cases computed by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevl.eval import metrics
from edgevl.eval.item import Item

CHOICES = {"A": "a red car", "B": "two dogs", "C": "the sea", "D": "nothing"}


def item(metric: str, *answers: str, name: str = "1") -> Item:
    choices = CHOICES if metric.startswith("choice") else {}
    return Item(name, ("what?",), answers, metric, choices)


@pytest.mark.parametrize(
    ("metric", "answer", "right", "score"),
    [
        ("exact", " Red. ", ["blue", "red"], 1),
        ("exact", "a red circle", ["red"], 0),
        ("contains", "It says: The\nCENTRE!", ["the centre"], 1),
        ("contains", "CENTER", ["centre", "CENTER"], 1),
        ("contains", "cent", ["centre"], 0),
        ("contains_formula", "$y _ {2} = -1$", ["y_{2}=-1"], 1),
        ("contains_formula", "Y_{2}=-1", ["y_{2}=-1"], 0),
        ("relaxed", "104.9", ["100"], 1),
        ("relaxed", "105", ["100"], 1),
        ("relaxed", "105.1", ["100"], 0),
        ("relaxed", "94.9", ["100"], 0),
        ("relaxed", "-95", ["-100"], 1),
        ("relaxed", "95", ["-100"], 0),
        ("relaxed", "62%", ["0.62"], 1),
        ("relaxed", "62%", ["62"], 0),
        ("relaxed", "0.001", ["0"], 0),
        ("relaxed", "0.0", ["0"], 1),
        ("relaxed", "yes", ["Yes"], 1),
        ("relaxed", "1,000", ["1000"], 0),
        ("relaxed", "nan", ["5"], 0),
        ("relaxed", "the green line", ["green line"], 0),
        ("anls", "itc  LIMITED", ["ITC Limited"], 1),
        ("anls", "itc limitd", ["xyz", "ITC Limited"], 10 / 11),
        ("anls", "abcx", ["abcd"], 0.75),
        ("anls", "ab", ["abcd"], 0),  # a distance of exactly 0.5
        ("anls", "", ["a"], 0),
        ("characters", "hallo ", ["hello"], 0.8),
        ("characters", "Hello", ["hello"], 0.8),
        ("characters", "hello, hello, hello", ["hello"], 0),
        ("json", '{ "Total": 4.5, "Name": "Ann" }', ['{"name":"Ann","total":4.50}'], 1),
        ("json", '{"total": 4}', ['{"total":4.0}'], 1),
        ("json", '{"total": "4"}', ['{"total":4}'], 0),
        ("json", '{"done": 1}', ['{"done":true}'], 0),
        ("json", '["a", "b"]', ['["b","a"]'], 0),
        ("json", '{"a": 1, "b": 2}', ['{"a":1}'], 0),
        ("json", '{"total": 4', ['{"total":4}'], 0),
        ("json", "[" * 100_000, ["[]"], 0),
        ("things", "a blue square, the moon and a red circle.", ["a red circle, a moon and a blue square"], 1),
        ("things", "a red circle and a red circle", ["a red circle"], 0),
        ("things", "a red circle", ["a red circle and a moon"], 0),
        ("true_false", "Yes, it is true.", ["true"], 1),
        ("true_false", "that is FALSE", ["true"], 0),
        ("true_false", "No", ["false"], 1),
        ("true_false", "untrue, nothing", ["true"], 0),
        ("true_false", "yes", ["Yes"], 1),
        ("count_in_braces", "There are 12 paths: {3}", ["3"], 1),
        ("count_in_braces", "3 lines and 4 points", ["3"], 1),
        ("count_in_braces", "{03}", ["3"], 1),
        ("count_in_braces", "{3}", ["03"], 1),
        ("count_in_braces", "three", ["3"], 0),
        ("rows_and_columns", "rows={5} columns={6}", ["5,6"], 1),
        ("rows_and_columns", "(6, 5)", ["5,6"], 0),
        ("rows_and_columns", "5", ["5,6"], 0),
        ("rows_and_columns", "rows={05} columns={06}", ["5,6"], 1),
        ("rows_and_columns", "(0, 6)", ["00,6"], 1),
        ("rows_and_columns", "The image shows 2 things. rows={5} columns={6}", ["5,6"], 1),
        ("rows_and_columns", "In the grid of 1 picture: Rows = { 5 }, Columns = {6}.", ["5,6"], 1),
        ("rows_and_columns", "columns={6} rows={5}", ["5,6"], 1),
        ("rows_and_columns", "columns={5} rows={6}", ["5,6"], 0),
        ("rows_and_columns", "1 grid: {5} by {6}", ["5,6"], 1),
        ("rows_and_columns", "rows={5}, and 6 columns", ["5,6"], 1),
        ("letter_in_braces", "The letter is {K}", ["k"], 1),
        ("letter_in_braces", "It is a k.", ["k"], 1),
        ("letter_in_braces", "A word", ["k"], 0),
        ("mmmu_open", "The mass is 36 watts, so the answer is 30.", ["30"], 1),
        ("mmmu_open", "36", ["30"], 0),
        ("mmmu_open", "x = 1,234.567", ["1234.57"], 1),
        ("mmmu_open", "it could be MgS", ["$MgS$", "MgS"], 1),
        ("mmmu_open", "Transformational", ["Transformation"], 1),
        ("mmmu_open", "cat", ["C"], 0),
        ("mmmu_open", "C", ["C"], 1),
    ],
)  # fmt: skip
def test_scores(metric: str, answer: str, right: list[str], score: float) -> None:
    assert metrics.score(answer, item(metric, *right)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *[(form, "C") for form in ("C", "C.", "(C)", " C) the sea", "**C**", "C, since it is blue", "Answer: C")],
        ("The answer is B.", "B"),
        ("it shows Two Dogs", "B"),
        ("A red car", "A"),
        ("A dog", None),
        ("the sea and two dogs", None),
        ("E", None),
        ("A. B.", None),
        ("I do not know", None),
        # a letter at the beginning, with white space, a mark or a line end behind it
        ("B because it shows puppies", "B"),
        ("B\n\nExplanation: there are puppies, in A they are cats.", "B"),
        ("**B** since there are two", "B"),
        ("B - the dogs", "B"),
        ("B? I think so, there are puppies", "B"),
        ("A because it is red", "A"),
        ("A\nThe car is red", "A"),
        ("A is right", "A"),
        ("A: there is a car", "A"),
        # keywords, in capitals or not
        ("Answer: B. Two puppies", "B"),
        ("**Answer:** B, as there are puppies", "B"),
        ("THE ANSWER IS B: puppies", "B"),
        ("Option B shows puppies", "B"),
        ("Option A shows cars", "A"),
        ("I would take choice (B) if asked", "B"),
        # the only one that stands alone
        ("I would go for B I guess", "B"),
        ("I would go for B, not for C I guess", None),
        ("B because A is a cat", "B"),
        # an article is no choice
        ("A dog is there", None),
        ("A Dog", None),
        ("I see a car. A dog is there", None),
        ("Answer: A puppy", None),
        ("A dog is there, so it is B", "B"),
        ("B. A dog is there", "B"),
        ("A-frame houses", None),
        ("vitamin-C", None),
        # more than one
        ("B and C are both right", None),
        ("A or B", None),
        *[
            (f"{before}{pair}", None)
            for before in ("Both ", "It could be ", "The options are ", "options ", "I see ")
            for pair in ("A and B", "B or C.", "A, B", "A/B")
        ],
        ("Answer: B, I think", "B"),
        ("Answer: B or C, it is hard to say", None),
        ("B because the answer is not C", None),
        ("two dogs " * 9, None),
    ],
)
def test_choices_of_mmbench(answer: str, letter: str | None) -> None:
    assert metrics.choice_of_mmbench(answer, CHOICES) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(A) or rather (B), B?", "B"),
        ("A is wrong. It is C !", "C"),
        ("b", None),
        ("I think that it shows two dogs", "B"),
        ("two dogs", None),  # texts count in longer answers only
    ],
)
def test_choices_of_mmmu(answer: str, letter: str | None) -> None:
    assert metrics.choice_of_mmmu(answer, CHOICES) == letter


def test_of_two_equal_choices_the_first_is_meant() -> None:
    assert metrics.choice_of_mmmu("this is what they call a granular body", {"A": "x", "B": "body", "C": "body"}) == "B"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("C. Berries.", "C"),
        ("The best answer is D", "D"),
        ("The correct option is: (B)", "B"),
        ("Best option: C", "C"),
        ("It is a Boat", "B"),  # as published: any capital of a choice
        ("b", None),
        ("", None),
    ],
)
def test_choices_of_video_mme(answer: str, letter: str | None) -> None:
    assert metrics.choice_of_video_mme(answer, CHOICES) == letter


def test_a_choice_is_right_or_wrong() -> None:
    for metric in ("choice_of_mmbench", "choice_of_video_mme"):
        assert [metrics.score(answer, item(metric, "B")) for answer in ("B", "C", "what?")] == [1, 0, 0]


def test_mmmu_draws_a_choice_where_none_is_named_and_always_the_same() -> None:
    items = [item("choice_of_mmmu", "B", name=str(number)) for number in range(400)]
    scores = [metrics.score("hm", one) for one in items]
    assert scores == [metrics.score("hm", one) for one in items]
    assert 70 <= sum(scores) <= 130, "one in four"
    assert metrics.choice("hm", items[0]) is None


def test_what_has_choices() -> None:
    assert metrics.has_choices(item("true_false", "true"))
    assert metrics.choice("No!", item("true_false", "true")) == "false"
    assert metrics.choice("perhaps", item("true_false", "true")) is None
    assert not metrics.has_choices(item("exact", "yes"))
    assert metrics.choice("B", item("exact", "yes")) is None


def test_an_answer_may_be_anything() -> None:
    for metric in metrics.METRICS:
        for answer in ("", " ", "{", "9" * 5000, "\ud800", "<image 1>\n\n", "- - -"):
            right = "B" if metric.startswith("choice") else "5,6"
            assert 0 <= metrics.score(answer, item(metric, right)) <= 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("['a', 'b, c']", ("a", "b, c")),
        ("[]", ()),
        ("['1', 2]", ("1", "2")),
        ("a", ("a",)),
        ("[a, b]", ("[a, b]",)),
        ("['a'", ("['a'",)),
        ("[" * 5000, ("[" * 5000,)),
        ("[{[]: 1}]", ("[{[]: 1}]",)),
    ],
)
def test_lists_as_python_writes_them(text: str, found: tuple[str, ...]) -> None:
    assert metrics.list_of(text) == found


def test_a_long_invention_counts_in_the_rate_of_all_text() -> None:
    pairs = [("hallo ", ["hello"]), ("hello, hello, hello", ["hello"]), ("abc", ["x", "abd"])]
    assert metrics.character_error_rate(pairs) == pytest.approx((1 + 14 + 1) / (5 + 5 + 3))
    assert metrics.character_error_rate([("", ["ab"])]) == 1
    assert metrics.character_error_rate([]) is None


@pytest.mark.parametrize(
    ("a", "b", "n"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("ab", "ba", 2)]
)
def test_levenshtein(a: str, b: str, n: int) -> None:
    assert metrics.levenshtein(a, b) == metrics.levenshtein(b, a) == n


@given(st.text("abé", max_size=12), st.text("abé", max_size=12))
def test_levenshtein_is_that_of_its_definition(a: str, b: str) -> None:
    rows = [list(range(len(b) + 1))]
    for number, letter in enumerate(a, start=1):
        above, row = rows[-1], [number]
        for column, other in enumerate(b):
            row.append(min(row[-1] + 1, above[column + 1] + 1, above[column] + (letter != other)))
        rows.append(row)
    assert metrics.levenshtein(a, b) == rows[-1][-1]


def test_long_texts_are_compared_quickly() -> None:
    started = time.process_time()
    metrics.levenshtein("abcdefghij" * 400, "bcdefghija" * 400)  # 16 million cells of the table
    assert time.process_time() - started < 1


def test_what_an_answer_depends_on_is_the_prompt_alone() -> None:
    one = item("exact", "red")
    assert one.digest == replace(one, id="2", answers=("blue",), metric="anls").digest
    assert one.digest != replace(one, prompt=("who?",)).digest
