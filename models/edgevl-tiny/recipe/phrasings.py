"""How printed text is asked for, in the words of training and in those of the held-out part."""

from __future__ import annotations

import random

from .drawn import Stock
from .questions import QA, vary

Phrasings = tuple[tuple[str, ...], tuple[str, ...]]
"""What training asks, and what the held-out part asks instead."""
READ_WORD: Phrasings = (
    ("what word is this?", "read the word.", "which word is printed?", "what does it say?", "what is written here?",
     "which word do you see?", "the word is?"),
    ("what word is printed here?", "tell me the word.", "can you read this word?"),
)  # fmt: skip
READ_LINE: Phrasings = (
    ("read the text.", "what is written here?", "what does the text say?", "read the line.", "what does it say?",
     "which text is printed?", "write down the text."),
    ("what text is shown?", "please read what is printed.", "what are the words in the picture?"),
)  # fmt: skip
READ_NTH: Phrasings = (
    ("read the {} line.", "what is in the {} line?", "what does the {} line say?"),
    ("tell me the {} line.", "which words are in the {} line?"),
)
READ_NUMBER: Phrasings = (
    ("what number is this?", "read the number.", "which number is printed?", "what is the number?",
     "what number do you see?"),
    ("tell me the number.", "what number is shown here?"),
)  # fmt: skip
READ_CODE: Phrasings = (
    ("what code is printed?", "read the code.", "what is the code?", "which code do you see?"),
    ("tell me the code.", "what code is shown here?"),
)
READ_PHONE: Phrasings = (
    ("what is the phone number?", "read the phone number.", "which phone number is printed?"),
    ("tell me the telephone number.", "what phone number is shown?"),
)
READ_DATE: Phrasings = (
    ("what date is this?", "read the date.", "which date is printed?", "what is the date?", "what date do you see?"),
    ("tell me the date.", "what date is shown here?"),
)
READ_TIME: Phrasings = (
    ("what time is printed?", "read the time.", "what is the time?"),
    ("tell me the time.", "what time is shown here?"),
)
LARGEST: Phrasings = (
    ("read the largest text.", "what is written in the largest letters?", "what does the biggest text say?"),
    ("which text is printed largest?", "tell me the text in the biggest letters."),
)
LEAST: Phrasings = (
    ("read the smallest text.", "what is written in the smallest letters?", "what does the smallest text say?"),
    ("which text is printed smallest?", "tell me the text in the tiniest letters."),
)
AT: dict[str, Phrasings] = {
    "top": (("what is written at the top?", "read the text at the top.", "what is the topmost text?"),
            ("which text is highest up?", "what does the text at the top say?")),
    "bottom": (("what is written at the bottom?", "read the text at the bottom.", "what is the lowest text?"),
               ("which text is furthest down?", "what does the text at the bottom say?")),
    "left": (("what is written on the left?", "read the text on the left.", "what is the leftmost text?"),
             ("which text is furthest to the left?", "what does the text on the left say?")),
    "right": (("what is written on the right?", "read the text on the right.", "what is the rightmost text?"),
              ("which text is furthest to the right?", "what does the text on the right say?")),
}  # fmt: skip
BELOW: Phrasings = (
    ('what is written below "{}"?', 'read the text under "{}".'),
    ('which text comes right below "{}"?',),
)
ABOVE: Phrasings = (
    ('what is written above "{}"?', 'read the text over "{}".'),
    ('which text comes right above "{}"?',),
)
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
FIELD: Phrasings = (
    ("what is the {0}?", "what is the {0}?", "what's the {0}?", "read the {0}.", "which {0} is given?",
     "what {0} does the {1} show?", "{0}?"),
    ("tell me the {0}.", "look up the {0} on the {1}.", "what does the {1} give as {0}?"),
)  # fmt: skip
SPECIAL: dict[str, Phrasings] = {
    "shop": (("which shop is this from?", "what is the name of the shop?", "where was this bought?"),
             ("which store printed this?", "what is the shop called?")),
    "customer": (("who is the customer?", "who is billed?", "who has to pay?"),
                 ("to whom is this invoice?", "who must pay this?")),
    "seller": (("who is the seller?", "who sent this invoice?", "which company is this invoice from?"),
               ("who wants to be paid?", "who wrote this invoice?")),
    "date": (("what date is on the {1}?", "when was the {1} written?", "what day is the {1} from?"),
             ("which date does the {1} have?", "of which day is the {1}?")),
    "due date": (("when is it due?", "when must it be paid?"), ("until when can it be paid?",)),
    "total": (("what is the total?", "how much is it in total?", "what is the total amount?", "how much must be paid?",
               "what does it all cost?"),
              ("what does everything cost together?", "which sum is to be paid?")),
    "tax": (("how much is the tax?", "how much tax is there?"), ("what tax is added?",)),
    "payment method": (("how was it paid?", "how did the customer pay?"), ("what was it paid with?",)),
}  # fmt: skip
CELL: Phrasings = (
    ("what is the {0} of {1}?", "what is the {0} of {1}?", 'what is the {0} in the row "{1}"?',
     "what {0} does {1} have?", "{1}: what is the {0}?", 'read the column "{0}" for {1}.'),
    ("which {0} is listed for {1}?", 'look up {1} under "{0}".'),
)  # fmt: skip
NTH: Phrasings = (
    ("what is the {0} {1}?", "read the {0} {1}.", "which {1} comes {0}?"),
    ("tell me the {0} {1} on the list.", "what {1} is in {0} place?"),
)
COUNT: Phrasings = (
    ("how many {0} are there?", "how many {0} are listed?", "count the {0}.", "what is the number of {0}?"),
    ("how many {0} does the list have?", "tell me how many {0} there are."),
)
WHICH: Phrasings = (
    ("which {0} has the {1} {2}?", "what is the {0} with the {1} {2}?", 'which {0} has {2} under "{1}"?'),
    ("whose {1} is {2}?", "find the {0} whose {1} is {2}."),
)
ABSENT: Phrasings = (
    ("what is the {0}?", "what's the {0}?", "read the {0}.", "which {0} is given?"),
    ("tell me the {0}.",),
)
SUMMED: Phrasings = (
    ("what is the total {0}?", 'what is the sum of the column "{0}"?', "how much is the {0} in total?"),
    ('what does the column "{0}" add up to?',),
)
KEYS: Phrasings = (
    ("answer as json with the {1} {0}.", "give {0} as json.", "read {0} and answer in json.", "json with the {1} {0}:"),
    ("write a json object with {0}.", "i need {0} in json form."),
)
ROW: Phrasings = (
    ('take the row "{}".', "about {}:", "look at the row of {}."),
    ("only the row that begins with {}.", "for {} alone:"),
)
SCHEMA: Phrasings = (
    (
        "answer as json under the schema {0}",
        "fill in this json schema: {0}",
        "read this as json: {0}",
        "answer in the form {0}",
    ),
    ("return json that matches {0}", "extract the data into {0}"),
)  # fmt: skip


def ask(rng: random.Random, stock: Stock, phrasings: Phrasings, answer: str, *names: str) -> QA:
    """Write a question of this part with its answer."""
    return vary(rng, stock.one_of(rng, *phrasings).format(*names)), answer
