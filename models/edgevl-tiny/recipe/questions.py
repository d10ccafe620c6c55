"""Questions and answers about a generated scene or a photograph.

Every function draws from a `random.Random`; answers to yes/no and either/or questions are balanced by choosing
the answer first, so that no wording gives it away. Answers are short, lower-case English.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .scenes import COLOURS, SHAPES, Scene, Thing

QA = tuple[str, str]
Maker = Callable[[random.Random, Scene], QA | None]

DESCRIBE = (
    "what's here?", "what is here?", "what is in this picture?", "what's in this image?", "what do you see?",
    "describe the picture.", "describe this image.", "what does the picture show?", "what can you see here?",
    "what is this a picture of?", "tell me what is in the image.", "what is shown here?", "list what you see.",
    "give me a description.", "name everything in the image.", "which objects are in the picture?",
)  # fmt: skip
COUNT_ALL = ("how many objects are there?", "how many shapes are there?", "how many things do you see?",
             "count the objects.", "how many shapes are in the picture?", "what is the number of objects?",
             "how many are there?", "give the number of shapes.", "how many objects can you count?",
             "number of things?")  # fmt: skip
COUNT_SOME = ("how many {} are there?", "how many {} do you see?", "count the {}.", "how many {} are in the picture?",
              "what is the number of {}?", "how many {} can you count?", "give the number of {}.", "number of {}?",
              "there are how many {}?")  # fmt: skip
COLOUR_OF = (
    "what colour is the {}?",
    "what color is the {}?",
    "which colour does the {} have?",
    "the {} is what colour?",
    "what's the colour of the {}?",
    "name the colour of the {}.",
    "the colour of the {}?",
    "what colour has the {}?",
)
SHAPE_OF = ("what shape is {}?", "which shape is {}?", "what is the shape of the {} object?", "what is the {} thing?",
            "what is {}?", "which object is {}?", "name the {} shape.", "what kind of shape is {}?",
            "what thing is {}?", "the {} object has which shape?")  # fmt: skip
NAME_ONE = (
    "what is this?",
    "what object is this?",
    "name the object.",
    "which object is shown?",
    "what is it?",
    "which object is it?",
    "what do we have here?",
    "say what it is.",
    "what can this be?",
)
NAME_AT = {
    "left": ("what is on the far left?", "what is the leftmost object?", "name the object furthest to the left.",
             "what comes first from the left?", "the leftmost thing is what?", "what stands on the left?",
             "which is the leftmost?"),
    "right": ("what is on the far right?", "what is the rightmost object?", "name the object furthest to the right.",
              "what comes first from the right?", "the rightmost thing is what?", "what stands on the right?",
              "which is the rightmost?"),
    "top": ("what is at the top?", "what is the topmost object?", "name the highest object.",
            "what comes first from the top?", "the topmost thing is what?", "what is above all others?",
            "which is the highest?"),
    "bottom": ("what is at the bottom?", "what is the lowest object?", "name the lowest object.",
               "what comes first from the bottom?", "the lowest thing is what?", "what is below all others?",
               "which is the lowest?"),
}  # fmt: skip
EXISTS = ("is there a {}?", "is there a {} in the picture?", "can you see a {}?", "do you see a {}?",
          "does the image show a {}?", "does the picture have a {}?", "is a {} shown?", "do we see a {}?",
          "say if there is a {}.", "is there any {}?", "has it got a {}?", "is a {} there?")  # fmt: skip
SIDES = ("is the {a} left or right of the {b}?", "is the {a} to the left or to the right of the {b}?",
         "on which side of the {b} is the {a}, left or right?", "is the {a} on the left or on the right of the {b}?",
         "where is the {a}, left or right of the {b}?", "compared to the {b}, is the {a} left or right?")  # fmt: skip
HEIGHTS = ("is the {a} above or below the {b}?", "is the {a} higher or lower than the {b}, above or below?",
           "the {a}: above or below the {b}?", "where is the {a}, above or below the {b}?",
           "compared to the {b}, is the {a} above or below?", "does the {a} stand above or below the {b}?")  # fmt: skip
IS_SIDE = ("is the {a} to the {side} of the {b}?", "is the {a} {side} of the {b}?",
           "is the {a} on the {side} of the {b}?", "does the {a} stand {side} of the {b}?",
           "can the {a} be found {side} of the {b}?", "do you see the {a} {side} of the {b}?")  # fmt: skip
IS_HEIGHT = ("is the {a} {side} the {b}?", "is the {a} placed {side} the {b}?",
             "does the {a} stand {side} the {b}?", "can the {a} be found {side} the {b}?",
             "do you see the {a} {side} the {b}?", "has the {a} its place {side} the {b}?")  # fmt: skip
IS_COLOUR = ("is the {shape} {colour}?", "is the colour of the {shape} {colour}?",
             "do you see that the {shape} is {colour}?", "is {colour} the colour of the {shape}?",
             "would you call the {shape} {colour}?")  # fmt: skip
WHERE = ("where is the {}?", "in which part of the picture is the {}?", "where do you see the {}?", "find the {}.",
         "the {} is where?", "where in the picture is the {}?", "where can the {} be found?",
         "say where the {} is.")  # fmt: skip
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")
LARGER = ("which is larger, the {a} or the {b}?", "which one is bigger, the {a} or the {b}?",
          "is the {a} or the {b} larger?", "which is the larger one, the {a} or the {b}?",
          "compare the {a} and the {b}: which is bigger?")  # fmt: skip
SMALLER = ("which is smaller, the {a} or the {b}?", "is the {a} or the {b} smaller?",
           "compare the {a} and the {b}: which is smaller?", "which one is smaller, the {a} or the {b}?")  # fmt: skip
MORE = ("are there more {a} than {b}?", "do you see more {a} than {b}?", "are the {a} more than the {b}?",
        "does the picture have more {a} than {b}?")  # fmt: skip
MARGIN = 0.1
"""Two things are only compared by place where their centres differ by this part of the picture's side."""

AROUND = ("could you tell me: {}", "hello. {}", "i want to know: {}", "look closely. {}", "question: {}",
          "{} answer briefly.", "{} just say it.", "one more thing: {}")  # fmt: skip

_NOUNS = """
    cat car house tree apple ball bird boat cup fish chair book hat horse key lamp leaf plane shoe table train
    banana bottle clock cloud sun flower man woman child face hand door window bag box bed bear cow sheep pig
    duck frog snake bridge road river stone cake bread egg pizza glass knife fork plate pen pencil shirt coat
    sock wheel engine ladder candle drum flag kite tent truck tower mountain wall fence rabbit mouse lion
"""
_NOUNS_HELD_OUT = """
    dog bus bicycle spoon guitar elephant sofa phone monkey bucket ship carrot
"""
ELSEWHERE, ELSEWHERE_HELD_OUT = tuple(_NOUNS.split()), tuple(_NOUNS_HELD_OUT.split())
"""Things that no scene shows."""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PLURALS = {shape: f"{shape}es" if shape.endswith("s") else f"{shape}s" for shape in SHAPES}


def article(noun: str) -> str:
    """Put `a` or `an` before a noun phrase."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(colour: str | None, shape: str | None) -> str:
    """Name a kind in the plural, such as `red circles`, `circles` or `red objects`."""
    noun = PLURALS[shape] if shape else "objects"
    return f"{colour} {noun}" if colour else noun


def join(parts: list[str]) -> str:
    """Join words as English does: commas, and `and` before the last."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def description(scene: Scene) -> str:
    """List a scene's things from left to right, repeated kinds once with their number."""
    counts = Counter((thing.colour, thing.shape) for thing in scene.things)
    parts = [
        article(f"{colour} {shape}") if n == 1 else f"{NUMBERS[n]} {plural(colour, shape)}"
        for (colour, shape), n in counts.items()
    ]
    return join(parts) + "." if parts else "nothing but the background."


def _unique(scene: Scene, key: Callable[[Thing], str]) -> list[Thing]:
    counts = Counter(key(thing) for thing in scene.things)
    return [thing for thing in scene.things if counts[key(thing)] == 1]


def describe(rng: random.Random, scene: Scene) -> QA:
    return rng.choice(DESCRIBE), description(scene)


def count_all(rng: random.Random, scene: Scene) -> QA:
    return rng.choice(COUNT_ALL), str(len(scene.things))


def count_some(rng: random.Random, scene: Scene) -> QA:
    """Count by colour, by shape or by both; sometimes things that are not there."""
    thing = rng.choice(scene.things)
    style = rng.random()
    colour = thing.colour if style < 0.75 else None
    shape = thing.shape if style > 0.35 else None
    if rng.random() < 0.12:
        colour = rng.choice(tuple(COLOURS)) if colour else None
        shape = rng.choice(SHAPES) if shape else None
    n = sum(colour in (None, t.colour) and shape in (None, t.shape) for t in scene.things)
    return rng.choice(COUNT_SOME).format(plural(colour, shape)), str(n)


def colour_of(rng: random.Random, scene: Scene) -> QA | None:
    things = _unique(scene, lambda thing: thing.shape)
    if not things:
        return None
    thing = rng.choice(things)
    return rng.choice(COLOUR_OF).format(thing.shape), thing.colour


def shape_of(rng: random.Random, scene: Scene) -> QA | None:
    things = _unique(scene, lambda thing: thing.colour)
    if not things:
        return None
    thing = rng.choice(things)
    return rng.choice(SHAPE_OF).format(thing.colour), thing.shape


def name(rng: random.Random, scene: Scene) -> QA | None:
    """Name the colour and shape of the only thing."""
    return (rng.choice(NAME_ONE), article(scene.things[0].name)) if len(scene.things) == 1 else None


def position(rng: random.Random, scene: Scene) -> QA | None:
    """Name the outermost of several things on a side, where it is clear which that is."""
    if len(scene.things) == 1:
        return None
    side = rng.choice(tuple(NAME_AT))
    horizontal = side in ("left", "right")
    places = sorted(scene.things, key=lambda thing: thing.x if horizontal else thing.y)
    if side in ("right", "bottom"):
        places.reverse()
    first, second = places[:2]
    gap = abs(first.x - second.x) / scene.width if horizontal else abs(first.y - second.y) / scene.height
    return (rng.choice(NAME_AT[side]), article(first.name)) if gap > 0.06 else None


def exists(rng: random.Random, scene: Scene) -> QA:
    """Ask for a colour and shape; absent kinds share a colour or shape with the scene three times in four."""
    present = {(thing.colour, thing.shape) for thing in scene.things}
    by_shape = rng.random() < 0.25
    if rng.random() < 0.5:
        colour, shape = rng.choice(sorted(present))
        return rng.choice(EXISTS).format(shape if by_shape else f"{colour} {shape}"), "yes"
    if by_shape:
        absent = [shape for shape in SHAPES if shape not in {s for _, s in present}]
        return rng.choice(EXISTS).format(rng.choice(absent)), "no"
    while True:
        colour, shape = rng.choice(tuple(COLOURS)), rng.choice(SHAPES)
        style = rng.random()
        if style < 0.4:
            colour = rng.choice(scene.things).colour
        elif style < 0.75:
            shape = rng.choice(scene.things).shape
        if (colour, shape) not in present:
            return rng.choice(EXISTS).format(f"{colour} {shape}"), "no"


def is_colour(rng: random.Random, scene: Scene) -> QA | None:
    things = _unique(scene, lambda thing: thing.shape)
    if not things:
        return None
    thing = rng.choice(things)
    if rng.random() < 0.5:
        return rng.choice(IS_COLOUR).format(shape=thing.shape, colour=thing.colour), "yes"
    others = [c for c in COLOURS if c != thing.colour]
    near = [t.colour for t in scene.things if t.colour != thing.colour]
    wrong = rng.choice(near if near and rng.random() < 0.5 else others)
    return rng.choice(IS_COLOUR).format(shape=thing.shape, colour=wrong), "no"


def _pair(rng: random.Random, scene: Scene, axis: str) -> tuple[Thing, Thing] | None:
    """Draw two things of kinds that occur once, clearly apart along `axis` ("x" or "y")."""
    things = _unique(scene, lambda thing: thing.name)
    side = scene.width if axis == "x" else scene.height
    pairs = [
        (a, b)
        for a in things
        for b in things
        if a is not b and abs(getattr(a, axis) - getattr(b, axis)) > MARGIN * side
    ]
    return rng.choice(pairs) if pairs else None


def _labels(rng: random.Random, scene: Scene, a: Thing, b: Thing) -> dict[str, str]:
    """Name two things fully, or by shape alone where that is clear."""
    shapes = Counter(thing.shape for thing in scene.things)
    short = shapes[a.shape] == shapes[b.shape] == 1 and rng.random() < 0.3
    return {"a": a.shape, "b": b.shape} if short else {"a": a.name, "b": b.name}


def relation(rng: random.Random, scene: Scene) -> QA | None:
    """Ask where one thing is from another: left or right, above or below."""
    axis = rng.choice("xy")
    pair = _pair(rng, scene, axis)
    if pair is None:
        return None
    a, b = pair
    names = _labels(rng, scene, a, b)
    if axis == "x":
        return rng.choice(SIDES).format(**names), "left" if a.x < b.x else "right"
    return rng.choice(HEIGHTS).format(**names), "above" if a.y < b.y else "below"


def is_relation(rng: random.Random, scene: Scene) -> QA | None:
    axis = rng.choice("xy")
    pair = _pair(rng, scene, axis)
    if pair is None:
        return None
    a, b = pair
    true = ("left" if a.x < b.x else "right") if axis == "x" else ("above" if a.y < b.y else "below")
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    yes = rng.random() < 0.5
    templates = IS_SIDE if axis == "x" else IS_HEIGHT
    question = rng.choice(templates).format(side=true if yes else opposite[true], **_labels(rng, scene, a, b))
    return question, "yes" if yes else "no"


def where(rng: random.Random, scene: Scene) -> QA | None:
    """Ask for the ninth of the picture that a thing's centre lies in, where it is clear which that is."""
    things = _unique(scene, lambda thing: thing.name)
    clear = [t for t in things if _clear_third(t.x / scene.width) and _clear_third(t.y / scene.height)]
    if not clear:
        return None
    thing = rng.choice(clear)
    row, column = ROWS[int(3 * thing.y / scene.height)], COLUMNS[int(3 * thing.x / scene.width)]
    return rng.choice(WHERE).format(thing.name), f"{row} {column}".strip() or "centre"


def _clear_third(place: float) -> bool:
    return 0 <= place < 1 and min(abs(place - 1 / 3), abs(place - 2 / 3)) > 0.04


def size(rng: random.Random, scene: Scene) -> QA | None:
    things = _unique(scene, lambda thing: thing.name)
    pairs = [(a, b) for a in things for b in things if a.radius > 1.3 * b.radius]
    if not pairs:
        return None
    large, small = rng.choice(pairs)
    a, b = (large, small) if rng.random() < 0.5 else (small, large)
    if rng.random() < 0.7:
        return rng.choice(LARGER).format(a=a.name, b=b.name), f"the {large.name}"
    return rng.choice(SMALLER).format(a=a.name, b=b.name), f"the {small.name}"


def more(rng: random.Random, scene: Scene) -> QA | None:
    counts = Counter(thing.shape for thing in scene.things)
    pairs = [(a, b) for a in counts for b in counts if counts[a] > counts[b]]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    yes = rng.random() < 0.5
    first, second = (a, b) if yes else (b, a)
    return rng.choice(MORE).format(a=PLURALS[first], b=PLURALS[second]), "yes" if yes else "no"


def absent(rng: random.Random, scene: Scene) -> QA:
    """Ask for the colour of a shape, or the shape of a colour, that is not there."""
    if rng.random() < 0.6:
        shape = rng.choice([shape for shape in SHAPES if shape not in {t.shape for t in scene.things}])
        return rng.choice(COLOUR_OF).format(shape), f"there is no {shape}."
    colour = rng.choice([colour for colour in COLOURS if colour not in {t.colour for t in scene.things}])
    return rng.choice(SHAPE_OF[:4]).format(colour), f"nothing is {colour}."


def _elsewhere(rng: random.Random, things: tuple[str, ...]) -> QA:
    """Ask about a thing that no scene shows: what colour it has, where it is, or whether it is there."""
    thing, asked = rng.choice(things), rng.random()
    if asked < 0.3:
        return rng.choice(EXISTS).format(thing), "no"
    return rng.choice(COLOUR_OF if asked < 0.7 else WHERE).format(thing), f"there is no {thing}."


def absent_thing(rng: random.Random, scene: Scene) -> QA:
    return _elsewhere(rng, ELSEWHERE)


def absent_thing_held_out(rng: random.Random, scene: Scene) -> QA:
    return _elsewhere(rng, ELSEWHERE_HELD_OUT)


TASKS: dict[str, tuple[Maker, ...]] = {
    "description": (describe,),
    "naming": (name,),
    "position": (position,),
    "colours": (colour_of,),
    "shapes": (shape_of,),
    "counting": (count_all,),
    "counting_kinds": (count_some,),
    "location": (where,),
    "relations": (relation,),
    "yes_no": (exists, exists, is_colour, is_relation, more),
    "size": (size,),
    "absent": (absent,),
    "absent_things": (absent_thing_held_out,),
}
"""Each task of the accuracy table, and the makers it draws from."""
IN_TRAINING: dict[str, tuple[Maker, ...]] = {**TASKS, "absent_things": (absent_thing,)}
"""What training draws from instead: nothing held out."""

ONCE = {describe, count_all, name}
"""Makers with one answer a scene: asking again in other words teaches nothing."""

MIX = {"description": 1.2, "naming": 1.0, "position": 1.0, "colours": 1.0, "shapes": 0.5, "counting": 2.0,
       "counting_kinds": 1.0, "location": 0.6, "relations": 1.6, "yes_no": 1.7, "size": 0.2, "absent": 0.2,
       "absent_things": 0.4}  # fmt: skip
GROUNDING_MIX = {"description": 0.4, "position": 0.7, "colours": 2.5, "shapes": 0.3, "counting": 0.2,
                 "counting_kinds": 0.5, "location": 2.5, "relations": 3.0, "yes_no": 2.5, "size": 0.5,
                 "absent": 0.1}  # fmt: skip

COUNTING_MIX = {"counting": 2.0, "counting_kinds": 3.0, "yes_no": 0.5}


def about_scene(rng: random.Random, scene: Scene, n: int, mix: dict[str, float] = MIX) -> list[QA]:
    """Draw `n` different questions about a scene, tasks by `mix`."""
    pairs: dict[str, str] = {}
    spent: set[Maker] = set()
    for _ in range(4 * n):
        task = rng.choices(tuple(mix), tuple(mix.values()))[0]
        maker = rng.choice(IN_TRAINING[task])
        pair = None if maker in spent else maker(rng, scene)
        if pair is not None and pair[0] not in pairs:
            pairs[pair[0]] = pair[1]
            if maker in ONCE:
                spent.add(maker)
        if len(pairs) == n:
            break
    return [(vary(rng, question), answer) for question, answer in pairs.items()]


@dataclass(frozen=True)
class PhotoQuestions:
    """How a photo pack is asked about: questions for its label, and the words around it in a description.

    `kind` are questions for the coarser label, of packs that have one.
    """

    label: tuple[str, ...]
    described: str
    noun: str
    kind: tuple[str, ...] = ()


PHOTOS = {
    "eurosat": PhotoQuestions(
        ("what land use is this?", "what does this satellite picture show?", "which kind of land is this?",
         "what kind of land does the satellite see?", "name the kind of land.", "which land is it?",
         "what is the land used for?"),
        "a satellite picture: {}.", "satellite picture"),
    "flowers": PhotoQuestions(
        ("what flower is this?", "which flower is this?", "what kind of flower is it?", "name the flower.",
         "the flower is called what?", "what is the flower called?", "what sort of flower can you see?"),
        "a flower: {}.", "flower"),
    "objects": PhotoQuestions(
        ("what object is this?", "what is this object?", "which object is in the photo?",
         "name the object in the photo.", "what can be seen in the photo?", "the photo shows what?",
         "what is the object called?"),
        "a photo: {}.", "object"),
    "grocery": PhotoQuestions(
        ("what product is this?", "which grocery product is this?", "name the product.", "what food is in the photo?",
         "what is the product called?", "which product can you see?"),
        "groceries: {}.", "product",
        ("what kind of groceries are these?", "which kind of food is this?", "what sort of food is in the photo?",
         "name the kind of groceries.", "what sort of groceries can you see?")),
    "trash": PhotoQuestions(
        ("what material is this?", "what kind of waste is this?", "which bin does this belong to?",
         "what is this waste made of?", "name the material.", "what sort of waste can you see?",
         "of which material is it?"),
        "waste: {}.", "piece of waste"),
    "signs": PhotoQuestions(
        ("which digit does the hand show?", "what number does this hand sign mean?",
         "which number is the hand showing?", "name the digit.", "what digit is this?",
         "the hand shows which number?"),
        "a hand sign: {}.", "hand sign"),
    "cards": PhotoQuestions(
        ("which cards are these?", "what playing cards do you see?", "name the playing cards."),
        "playing cards: {}.", "set of playing cards"),
}  # fmt: skip


def about_photo(rng: random.Random, pack: str, label: str, labels: list[str], kind: str = "", n: int = 3) -> list[QA]:
    """Draw up to `n` questions about a photo of `pack`: its label, one of `labels`, and its coarser label `kind`."""
    row = PHOTOS[pack]
    pairs = [(rng.choice(row.label), label)]
    if kind:
        pairs.append((rng.choice(row.kind), kind))
    if rng.random() < 0.6:
        pairs.append((rng.choice(DESCRIBE), row.described.format(label)))
    if rng.random() < 0.4:
        if rng.random() < 0.5:
            pairs.append((f"is this {article(label)}?", "yes"))
        else:
            pairs.append((f"is this {article(rng.choice([other for other in labels if other != label]))}?", "no"))
    if rng.random() < 0.1:
        other = rng.choice([name for name in PHOTOS if name != pack])
        asked = rng.choice((pack, other))
        pairs.append((f"is this {article(PHOTOS[asked].noun)}?", "yes" if asked == pack else "no"))
    rng.shuffle(pairs)
    return [(vary(rng, question), answer) for question, answer in pairs[:n]]


def spoken(rng: random.Random, question: str) -> str:
    """Put words around one question in six that ask nothing: a model that never met any takes them for the question."""
    return rng.choice(AROUND).format(question) if rng.random() < 1 / 6 else question


def vary(rng: random.Random, question: str) -> str:
    """Write a question as people do: sometimes with a capital, sometimes without its last mark."""
    if rng.random() < 0.3:
        question = question[0].upper() + question[1:]
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    return question
