"""How printed text is asked for, in the words of training and in those of the held-out part."""

from __future__ import annotations

import random

from .drawn import Stock
from .questions import QA, vary
from .wording import spelled

Phrasings = tuple[tuple[str, ...], tuple[str, ...]]
"""What training asks, and what the held-out part asks instead."""
READ_WORD: Phrasings = (
    spelled(
        "[what|which] word [is this|do you see|is written|stands here|can be read|does it show]?",
        "[read|write down|spell|copy|transcribe] [the|this] [word|printed word].",
        "what [does it say|is written here|does this say|does the picture say]?",
        "[what's|what is|give|say|find|name] the word?",
        "which word is printed?",
        "the word [is|here is|says]?",
        "[which|what] word has been printed [here|in the picture|]?",
    ),
    ("what word is printed here?", "tell me the word.", "can you read this word?"),
)  # fmt: skip
READ_LINE: Phrasings = (
    spelled(
        "[read|write down|copy|transcribe|type out] [the text|the line|this text|the words|all text|this].",
        "what [does the text|does it|does this|does the line|does the picture|does the image] say?",
        "what is [written here|written|the text|to be read here]?",
        "which [text|words|line] [is printed|do you see|can be read|are written here]?",
        "[what's|what is|give|find|say] the text [here|in the picture|in the image|]?",
        "text in the [image|picture]?",
    ),
    ("what text is shown?", "please read what is printed.", "what are the words in the picture?"),
)  # fmt: skip
READ_NTH: Phrasings = (
    spelled(
        "[read|write down|copy|transcribe|give] the {} line [of the text|]?",
        "what [is in|is written in|does it say in|stands in] the {} line?",
        "what does the {} line [say|read|contain|tell]?",
        "[what's|what is] the {} line [of the text|]?",
        "the {} line [says|reads|is] what?",
    ),
    ("tell me the {} line.", "which words are in the {} line?"),
)
READ_NUMBER: Phrasings = (
    spelled(
        "[what|which] number [is this|do you see|is printed|is written|is given|can be read|is in the picture]?",
        "[read|write down|copy|transcribe|find|give] [the|this] number.",
        "[what's|what is] the number [here|in the picture|]?",
        "the number [is|here is|says]?",
    ),
    ("tell me the number.", "what number is shown here?"),
)  # fmt: skip
READ_CODE: Phrasings = (
    spelled(
        "[what|which] code [is this|do you see|is printed|is written|is given|can be read|is in the picture]?",
        "[read|write down|copy|transcribe|find|give] [the|this] code.",
        "[what's|what is] the code [here|in the picture|]?",
        "the code [is|here is|says]?",
    ),
    ("tell me the code.", "what code is shown here?"),
)
READ_PHONE: Phrasings = (
    spelled(
        "[what|which] phone number [is this|do you see|is printed|is written|is given|can be read|is in the picture]?",
        "[read|write down|copy|transcribe|find|give] [the|this] phone number.",
        "[what's|what is] the phone number [here|in the picture|]?",
        "the phone number [is|here is|says]?",
    ),
    ("tell me the telephone number.", "what phone number is shown?"),
)
READ_DATE: Phrasings = (
    spelled(
        "[what|which] date [is this|do you see|is printed|is written|is given|can be read|is in the picture]?",
        "[read|write down|copy|transcribe|find|give] [the|this] date.",
        "[what's|what is] the date [here|in the picture|]?",
        "the date [is|here is|says]?",
    ),
    ("tell me the date.", "what date is shown here?"),
)
READ_TIME: Phrasings = (
    spelled(
        "[what|which] time [is this|do you see|is printed|is written|is given|can be read|is in the picture]?",
        "[read|write down|copy|transcribe|find|give] [the|this] time.",
        "[what's|what is] the time [here|in the picture|]?",
        "the time [is|here is|says]?",
    ),
    ("tell me the time.", "what time is shown here?"),
)
LARGEST: Phrasings = (
    spelled(
        "[read|write down|copy] the [largest|biggest] [text|words|print].",
        "what is [written|printed] in the [largest|biggest] [letters|print|type|font]?",
        "what does the [largest|biggest] [text|print|line] say?",
        "[what's|what is|give] the [largest|biggest] text?",
        "which text is the [largest|biggest]?",
    ),
    ("which text is printed largest?", "tell me the text in the biggest letters."),
)
LEAST: Phrasings = (
    spelled(
        "[read|write down|copy] the [smallest|finest] [text|words|print].",
        "what is [written|printed] in the [smallest|finest] [letters|print|type|font]?",
        "what does the [smallest|finest] [text|print|line] say?",
        "[what's|what is|give] the smallest text?",
        "which text is the smallest?",
    ),
    ("which text is printed smallest?", "tell me the text in the tiniest letters."),
)
AT: dict[str, Phrasings] = {
    "top": (
        spelled(
            "what [is|is written|stands|is printed|does it say] at the [top|very top]?",
            "[read|write down|give] [the text|the line|what is] at the top.",
            "[what is|what's|read] the [topmost|highest|uppermost] [text|line]?",
        ),
        ("which text is highest up?", "what does the text at the top say?"),
    ),
    "bottom": (
        spelled(
            "what [is|is written|stands|is printed|does it say] at the [bottom|very bottom]?",
            "[read|write down|give] [the text|the line|what is] at the bottom.",
            "[what is|what's|read] the [lowest|bottommost] [text|line]?",
        ),
        ("which text is furthest down?", "what does the text at the bottom say?"),
    ),
    "left": (
        spelled(
            "what [is|is written|stands|is printed|does it say] [on the left|on the left side|at the left edge]?",
            "[read|write down|give] [the text|what is] [on the left|at the left].",
            "[what is|what's|read] the leftmost text?",
        ),
        ("which text is furthest to the left?", "what does the text on the left say?"),
    ),
    "right": (
        spelled(
            "what [is|is written|stands|is printed|does it say] [on the right|on the right side|at the right edge]?",
            "[read|write down|give] [the text|what is] [on the right|at the right].",
            "[what is|what's|read] the rightmost text?",
        ),
        ("which text is furthest to the right?", "what does the text on the right say?"),
    ),
}
BELOW: Phrasings = (
    spelled(
        'what [is|is written|stands|is printed|does it say] [below|under|beneath] "{}"?',
        '[read|write down|give] [the text|the line|what is] [below|under|beneath] "{}".',
        '[which|what] [text|line] is [below|under|beneath] "{}"?',
    ),
    ('which text comes right below "{}"?',),
)
ABOVE: Phrasings = (
    spelled(
        'what [is|is written|stands|is printed|does it say] [above|over] "{}"?',
        '[read|write down|give] [the text|the line|what is] [above|over] "{}".',
        '[which|what] [text|line] is [above|over] "{}"?',
    ),
    ('which text comes right above "{}"?',),
)
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
FIELD: Phrasings = (
    spelled(
        "[what is|what's|read|give|find|write down|name] the {0}?",
        "[what|which] {0} [is given|is printed|does the {1} show|does the {1} have|is on the {1}|stands on the {1}]?",
        "[what is|what's|find|give] the {0} [on|of] the {1}?",
        "the {0} [is|on the {1} is|says] what?",
        "what does it say [for|as|at|under] {0}?",
        "{0}?",
    ),
    ("tell me the {0}.", "look up the {0} on the {1}.", "what does the {1} give as {0}?"),
)  # fmt: skip
SPECIAL: dict[str, Phrasings] = {
    "shop": (
        spelled(
            "[which|what] [shop|store] is [this|it|the {1}] from?",
            "[what is|what's|read|give] the name of the shop?",
            "where [was this|was it|were these things] bought?",
        ),
        ("which store printed this?", "what is the shop called?"),
    ),
    "customer": (
        spelled("who [is|is named as] the customer?", "who is [billed|charged]?", "who has to pay [this|it|]?"),
        ("to whom is this invoice?", "who must pay this?"),
    ),
    "seller": (
        spelled(
            "who is the seller?", "who sent [this|the] [invoice|bill]?", "[which|what] company is this invoice from?"
        ),
        ("who wants to be paid?", "who wrote this invoice?"),
    ),
    "date": (
        spelled(
            "[what|which] date is on the {1}?",
            "when was the {1} [written|made|printed]?",
            "[what|which] day is the {1} from?",
        ),
        ("which date does the {1} have?", "of which day is the {1}?"),
    ),
    "due date": (
        spelled("when is [it|this] due?", "when must [it|this] be paid?", "by [when|what date] must it be paid?"),
        ("until when can it be paid?",),
    ),
    "total": (
        spelled(
            "[what is|what's|give|find|read] the [total|total amount|total sum|grand total]?",
            "how much [is it|is that|does it come to] [in total|altogether|in all]?",
            "how much [must be|is to be|has to be] paid?",
            "what does it all cost?",
        ),
        ("what does everything cost together?", "which sum is to be paid?"),
    ),
    "tax": (spelled("how much [is the tax|tax is there|is taxed]?", "how high is the tax?"), ("what tax is added?",)),
    "payment method": (
        spelled("how was [it|this] paid?", "how did the customer pay?", "by what means was it paid?"),
        ("what was it paid with?",),
    ),
}
CELL: Phrasings = (
    spelled(
        "[what is|what's|give|find|read] the {0} [of|for] {1}?",
        'what is the {0} in the [row|line] "{1}"?',
        "[what|which] {0} [does {1} have|has {1}|is given for {1}]?",
        "{1}: [what is the {0}|which {0}|{0}]?",
        'read the column "{0}" for {1}.',
    ),
    ("which {0} is listed for {1}?", 'look up {1} under "{0}".'),
)  # fmt: skip
NTH: Phrasings = (
    spelled(
        "[what is|what's|read|give|name|write down] the {0} {1}?",
        "[what|which] {1} [comes|stands|is] {0}?",
        "the {0} {1} is what?",
    ),
    ("tell me the {0} {1} on the list.", "what {1} is in {0} place?"),
)
COUNT: Phrasings = (
    spelled(
        "how many {0} [are there|are listed|do you see|are on it|are given|]?",
        "count [the|all] {0}.",
        "[what is|what's|give|find] the number of {0}?",
        "number of {0}?",
    ),
    ("how many {0} does the list have?", "tell me how many {0} there are."),
)
WHICH: Phrasings = (
    spelled(
        "[which|what] {0} has the {1} {2}?",
        "[what is|what's|name|give] the {0} with the {1} {2}?",
        'which {0} has {2} under "{1}"?',
        "the {1} {2} [belongs to|is that of] which {0}?",
    ),
    ("whose {1} is {2}?", "find the {0} whose {1} is {2}."),
)
ABSENT: Phrasings = (
    spelled(
        "[what is|what's|read|give|find|write down|name] the {0}?",
        "[what|which] {0} is [given|printed]?",
        "what does it say [for|as] {0}?",
    ),
    ("tell me the {0}.",),
)
SUMMED: Phrasings = (
    spelled(
        "[what is|what's|give|find] the total {0}?",
        '[what is|what\'s|give] the sum of the column "{0}"?',
        "how much is the {0} [in total|altogether|in all]?",
        "add up the {0}.",
    ),
    ('what does the column "{0}" add up to?',),
)
KEYS: Phrasings = (
    spelled(
        "[answer|reply] [as|in|with] json with the {1} {0}.",
        "[give|write|return|read] {0} as json.",
        "read {0} and answer in json.",
        "json with [the {1} |]{0}:",
    ),
    ("write a json object with {0}.", "i need {0} in json form."),
)
ROW: Phrasings = (
    ('take the row "{}".', "about {}:", "look at the row of {}."),
    ("only the row that begins with {}.", "for {} alone:"),
)
SCHEMA: Phrasings = (
    spelled(
        "[answer|reply] [as|in] json [under|by|after] [the|this] schema {0}",
        "fill in this json schema: {0}",
        "read this as json: {0}",
        "[answer|reply] in the form {0}",
    ),
    ("return json that matches {0}", "extract the data into {0}"),
)  # fmt: skip


def ask(rng: random.Random, stock: Stock, phrasings: Phrasings, answer: str, *names: str) -> QA:
    """Write a question of this part with its answer."""
    return vary(rng, stock.one_of(rng, *phrasings).format(*names)), answer
