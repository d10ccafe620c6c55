"""Questions and answers about a generated scene or a photograph.

Every function draws from a `random.Random`; answers to yes/no and either/or questions are balanced by choosing
the answer first, so that no wording gives it away. Answers are short, lower-case English.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .scenes import COLOURS, SHAPES, Scene, Thing
from .wording import spelled

QA = tuple[str, str]
Maker = Callable[[random.Random, Scene], QA | None]

_SAY = "name|give|say|state|report|find|get|write|let me know|i want|i need|show me"
"""How something is asked for without a question."""
_SAY_THAT = "say|state|report|write|let me know|i want to hear|find out|note|explain"
"""How a sentence is asked for."""

DESCRIBE = spelled(
    "[what's|what is] [here|in this picture|in the image|shown here|to be seen here|in view|this a picture of]?",
    "what [do|can|could] [you|we|i] see [here|in the picture|in this image|on it|]?",
    "[describe|explain|sum up] [the|this] [picture|image|photo|scene].",
    "what [does|might] [the|this] [picture|image|photo] [show|contain|have in it]?",
    "[list|say|write down] [what you see|what is there|all objects|what the picture shows|all that is here].",
    "[which|what] [objects|things] [are in the picture|are here|are there|do you see|does the image show]?",
    "give me [a description|a list of what is here|the contents].",
    f"[{_SAY_THAT}] [what is in the image|what is here|what this shows].",
    "name [everything|all things|what is] in the [image|picture].",
)
COUNT_ALL = spelled(
    "how many [objects|shapes|things|items|figures] [are there|do you see|are here|are in the picture|can you count|"
    "does it have|have been drawn]?",
    "[count|count up|add up] [the|all] [objects|shapes|things|items].",
    "[what is|what's] the number of [objects|shapes|things].",
    f"[{_SAY}] the number of [objects|shapes|things|items].",
    f"[{_SAY_THAT}] how many [objects|shapes|things|items] there are.",
    "how many [objects|shapes|things|items] can be [seen|counted|found]?",
    "how many [objects|shapes|things|items] [has|holds] [the image|it]?",
    "number of [objects|shapes|things|items]?",
    "how many [are there|are in it|is that|in all|altogether]?",
    "[there are|you see|the image has] how many [objects|shapes|things]?",
)
COUNT_SOME = spelled(
    "how many {} [are there|do you see|are here|are in the picture|can you count|does it have|have been drawn|]?",
    "[count|count up|add up] [the|all] {}.",
    "[what is|what's] the number of {}.",
    f"[{_SAY}] the number of {{}}.",
    f"[{_SAY_THAT}] how many {{}} there are.",
    "how many {} can be [seen|counted|found]?",
    "how many {} [has|holds] [the image|it]?",
    "number of {}?",
    "[there are|you see|the image has] how many {}?",
    "{}: how many [are there|do you see|]?",
)
COLOUR_OF = spelled(
    "[what|which] [colour|color] [is|has] the {}?",
    "[what|which] [colour|color] does the {} have?",
    "the {} [is|has] [what|which] [colour|color]?",
    "[what's|what is|name|give|say|find|] the [colour|color] of the {}?",
    f"[{_SAY}] the [colour|color] of the {{}}.",
    f"[{_SAY_THAT}] [what|which] [colour|color] the {{}} [is|has].",
    "of [what|which] [colour|color] is the {}?",
    "[what|which] [colour|color] [was used for|did they give] the {}?",
    "the [colour|color] of the {} is what?",
    "[what|which] [colour|color] [was|would you say is|do you see for] the {}?",
    "the {}: [what|which] [colour|color]?",
    "how is the {} coloured?",
)
SHAPE_OF = (
    "what shape is {}?", "which shape is {}?", "what is the shape of the {} object?", "what is the {} thing?",
    *spelled(
        "[what|which object|which thing|what thing|what kind of shape|what form] is {}?",
        "[name|give|say|find] the {} [shape|thing|object].",
        f"[{_SAY}] the shape of the {{}} [thing|object|one].",
        f"[{_SAY_THAT}] [what|which shape|which thing] is {{}}.",
        "of which shape is the {} [one|thing|object]?",
        "the {} [object|thing|one] [has which shape|is what|is which shape|is what shape]?",
        "[what|which] shape has the {} [thing|object]?",
        "what shape does the {} object have?",
        "what's the shape of the {} [one|thing]?",
    ),
)  # fmt: skip
NAME_ONE = spelled(
    "what [is|was|would] [this|that|it]?",
    "[what|which] [object|thing|shape] is [this|that|it|shown|here|drawn here]?",
    "[name|identify|classify] [the object|this|it|this thing|the thing].",
    "what do we have here?",
    f"[{_SAY_THAT}] what [it is|the object is|is shown].",
    f"[{_SAY}] the name of [this|the object|it].",
    "what can this be?",
    "what [object|thing] do you see?",
)
NAME_AT = {
    side: spelled(
        f"[what|which object|which thing|what object] [is|lies|stands|do you see] [{'|'.join(places)}]?",
        f"[name|say|find] [the object|what is|the thing] [{'|'.join(places)}].",
        f"[{_SAY}] the [{'|'.join(most)}] [object|thing|shape].",
        f"[{_SAY_THAT}] [what|which thing] is [{'|'.join(places)}].",
        f"[what is|what's|name|] the [{'|'.join(most)}] [object|thing|shape|one|]?",
        f"the [{'|'.join(most)}] [object|thing|one] is what?",
        f"what comes first [from|at] the {side}?",
        f"{last}?",
    )
    for side, places, most, last in (
        ("left", ("on the left", "on the far left", "at the left side", "to the left of all others"),
         ("leftmost", "left", "far left"), "what stands on the left"),
        ("right", ("on the right", "on the far right", "at the right side", "to the right of all others"),
         ("rightmost", "right", "far right"), "what stands on the right"),
        ("top", ("at the top", "at the very top", "uppermost", "above all others", "over all the others"),
         ("topmost", "highest", "top", "upper"), "which is the highest"),
        ("bottom", ("at the bottom", "at the very bottom", "lowest", "below all others", "under all the others"),
         ("lowest", "bottom", "lower"), "which is the lowest"),
    )
}  # fmt: skip
NEXT = {
    side: spelled(
        f"[what|which thing|which object] is [next|the next one] to the {side} of the {{}}?",
        f"[what|which thing] [comes|follows] next on the {side} [of|after] the {{}}?",
        f"going {side} from the {{}}, what [comes|do you meet] first?",
        f"[name|say|find] the nearest thing to the {side} of the {{}}.",
    )
    for side in ("left", "right")
}
"""Asked in training alone: a list goes from each thing to the next."""
EXISTS = spelled(
    "is there [a|any] {} [here|there|in the picture|in the photo|to be seen|]?",
    "[can|do|could|did] [you|we|i] [see|find|spot|make out] a {} [here|there|in it|in the picture|]?",
    "does [the image|the picture|it|this photo] [show|have|contain|include] a {}?",
    "is a {} [shown|there|here|visible|present|in the picture|part of the scene|drawn here]?",
    "[has|have] [it|we] got a {}?",
    "[say|check|let me know|state|find out|report] [if|whether] [there is a {}|a {} is here|you see a {}].",
    "is there [a|any] {} [at all|somewhere|anywhere]?",
    "[look for|search] a {}: is [it there|there one]?",
    "a {} [is here, yes or no|in the picture|here]?",
)
SIDES = spelled(
    "is the {a} [|to the |on the ]left or [|to the |on the ]right of the {b}?",
    "[on|to] which side of the {b} [is|lies] the {a}, left or right?",
    "[where|on which side] [is|lies|stands] the {a}, left or right of the {b}?",
    "[compared to|seen from|next to] the {b}, is the {a} [|on the ]left or right?",
    "does the {a} stand left or right of the {b}?",
    "is the {a} [placed|found|drawn|shown] left or right of the {b}?",
    "which side of the {b} has the {a}: left or right?",
    f"[{_SAY_THAT}] if the {{a}} is left or right of the {{b}}.",
    "left or right of the {b}: where is the {a}?",
)
HEIGHTS = spelled(
    "is the {a} [|found |shown ]above or below the {b}?",
    "is the {a} higher or lower than the {b}, above or below?",
    "the {a}: above or below the {b}?",
    "where [is|lies|stands] the {a}, above or below the {b}?",
    "[compared to|seen from|next to] the {b}, is the {a} above or below?",
    "does the {a} stand above or below the {b}?",
    "is the {a} [drawn|seen] above or below the {b}?",
    f"[{_SAY_THAT}] if the {{a}} is above or below the {{b}}.",
    "above or below the {b}: where is the {a}?",
)
IS_SIDE = spelled(
    "is the {a} [|to the |on the ]{side} of the {b}?",
    "[does|did] the {a} stand [|to the |on the ]{side} of the {b}?",
    "[can|could] the {a} be [found|seen] {side} of the {b}?",
    "[do|can] you [see|find] the {a} {side} of the {b}?",
    "is the {a} [drawn|found|shown|] {side} of the {b}?",
    "the {a} is {side} of the {b}, [yes or no|right|is it]?",
    "is the place of the {a} {side} of the {b}?",
    "{side} of the {b}: is the {a} there?",
    f"[{_SAY_THAT}] if the {{a}} is {{side}} of the {{b}}.",
)
IS_HEIGHT = spelled(
    "is the {a} [|found |drawn |shown |located ]{side} the {b}?",
    "[does|did] the {a} stand {side} the {b}?",
    "[can|could] the {a} be [found|seen] {side} the {b}?",
    "[do|can] you [see|find] the {a} {side} the {b}?",
    "has the {a} its place {side} the {b}?",
    "the {a} is {side} the {b}, [yes or no|right|is it]?",
    "{side} the {b}: is the {a} there?",
    f"[{_SAY_THAT}] if the {{a}} is {{side}} the {{b}}.",
)
IS_COLOUR = spelled(
    "is the {shape} [|painted |shown in |really ]{colour}?",
    "is [the colour of the {shape}|the {shape}'s colour] {colour}?",
    "[do|can] you see that the {shape} is {colour}?",
    "is {colour} the [colour|color] of the {shape}?",
    "would you call the {shape} {colour}?",
    "the {shape} is {colour}, [yes or no|right|is it]?",
    "has the {shape} a {colour} [colour|look]?",
    f"[{_SAY_THAT}] if the {{shape}} is {{colour}}.",
)
WHERE = spelled(
    "where [is|do you see|can you see|could i find|lies] the {}?",
    "where [in|on] the [picture|image] is the {}?",
    "[in|at] [which|what] [part|area|corner] of the [picture|image] [is|lies] the {}?",
    "[find|locate|point to] the {}.",
    "the {} is [where|at what place|in which part|in what area]?",
    "where can the {} be [found|seen]?",
    f"[{_SAY_THAT}] where [the {{}} is|you see the {{}}|to find the {{}}].",
    f"[what is|{_SAY}] the [place|position] of the {{}}.",
    "at what [spot|point|position] is the {}?",
    "which [part|place|area|corner] has the {}?",
)
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")
LARGER = spelled(
    "which [|one |thing ]is [larger|bigger|the larger one|the bigger], the {a} or the {b}?",
    "is the {a} or the {b} [larger|bigger|the larger one]?",
    "[compare|look at] the {a} and the {b}: which is [larger|bigger]?",
    "[what|which] has [more|the larger] size, the {a} or the {b}?",
    "between the {a} and the {b}, [which one|what] is [larger|bigger]?",
    "the {a} and the {b}: which is the [larger|bigger] one?",
    "which of the two is [larger|bigger], the {a} or the {b}?",
    f"[{_SAY_THAT}] which is [larger|bigger], the {{a}} or the {{b}}.",
)
SMALLER = spelled(
    "which [|one |thing ]is [smaller|the smaller one|the smaller], the {a} or the {b}?",
    "is the {a} or the {b} [smaller|the smaller one]?",
    "[compare|look at] the {a} and the {b}: which is smaller?",
    "between the {a} and the {b}, [which one|what] is smaller?",
    "the {a} and the {b}: which is the smaller one?",
    "which of the two is smaller, the {a} or the {b}?",
    f"[{_SAY_THAT}] which is smaller, the {{a}} or the {{b}}.",
)
MORE = spelled(
    "are there more {a} than {b}[| here| in the picture]?",
    "[do|can] you [see|count|find] more {a} than {b}?",
    "are the {a} more than the {b}?",
    "does [the picture|it|the image] [have|show] more {a} than {b}?",
    "more {a} than {b}?",
    "do the {a} outnumber the {b}?",
    "is there a [larger|higher|greater] number of {a} than of {b}?",
    "is the count of {a} [above|over|greater than] the count of {b}?",
    f"[{_SAY_THAT}] if there are more {{a}} than {{b}}.",
)
MARGIN = 0.1
"""Two things are only compared by place where their centres differ by this part of the picture's side."""

NEAR = 0.04
"""The same for the order from left to right."""

BEFORE = spelled(
    "[could|can|would|will] you [tell me|say|answer|let me know]:",
    "[hello|hi|hey|good day|ok|now|so|well|right|look|sir|excuse me|sorry|my friend][.|,|:]",
    "i [want to know|wonder|need to know|would like to know|ask|am asking|have to know|cannot see it]:",
    "we [want to know|wonder|need to know|ask ourselves|have a question]:",
    "[look closely|look at this|look here|think first|listen|take a look|here is a picture|see this photo][.|:]",
    "[question|next|quickly|another one|one more thing|answer this|my question|first of all|tell me|once more]:",
    "[for my homework|for a friend|for my work|from what is shown|going by the picture][,|:]",
)
AFTER = spelled(
    "[answer briefly|just say it|be short|what do you think|i am curious|in short|tell me|go ahead|that is all][.|]",
    "[if you can|if possible|for me|right now|my friend|in one word|cheers|much obliged|will you|i forgot][.|]",
    "[no hurry|take your time|be quick|as well as you can|i cannot see it|it is for my homework|my eyes are bad][.|]",
    "[we want to know|i ask for a friend|do not guess|only the answer|in a few words|kindly|sir|good luck][.|]",
    "[well done|this is a test|look closely|have a look|i hope that is clear|bye|yours, anna|best wishes][.|]",
    "[say no more|it matters to me|come on|and nothing else|i have no idea|so i can go on|help me|be honest][.|]",
)
"""Idle words before and after a question."""
LINKS = spelled(
    "[a|the|of|to|and|it|you|i|is|are|that|this|in|on|for|with|not|very|much|lot|can|do|so|we|me|my|your|all|if|but]",
    "[as|be|at|many|more|from|here|there|now|then|was|has|have|had|will|would|by|or|an|just|how|who|when|does|did]",
    "[than|which|what|where|each|every|other|same|first|last|only|between|both|less|most|left|right|above|below|see]",
)
"""Words that stand between others, and such as questions hang on: where they meant something whenever they came, a
word that shared a token with one of them ("thank" with "than") was answered like it."""
NEVER_IDLE = ("please", "thank")
"""Beginnings of idle words that only held-out questions have."""

_NOUNS = """
    cat car house tree apple ball bird boat cup fish chair book hat horse key lamp leaf plane shoe table train
    banana bottle clock cloud sun flower man woman child face hand door window bag box bed bear cow sheep pig
    duck frog snake bridge road river stone cake bread egg pizza glass knife fork plate pen pencil shirt coat
    sock wheel engine ladder candle drum flag kite tent truck tower mountain wall fence rabbit mouse lion
    tiger bear zebra camel donkey goat hen eagle owl parrot swan whale shark dolphin crab ant bee spider worm
    butterfly turtle lizard dragon squirrel fox wolf deer kangaroo penguin peacock lemon pear grape peach
    cherry melon onion potato tomato pepper bean corn rice cheese butter milk coffee tea juice water soup salad
    sandwich burger sausage biscuit cookie chocolate candy honey van taxi tram ferry rocket helicopter tractor
    scooter motorbike wagon tyre piano violin trumpet flute radio camera screen keyboard printer laptop tablet
    microphone speaker cable battery bulb torch mirror carpet curtain pillow blanket towel soap brush comb razor
    needle thread button zip scarf glove belt tie dress skirt shirt jacket boot sandal crown necklace watch
    wallet purse suitcase backpack basket box barrel bottle jar bowl plate pan kettle oven fridge sink tap bath
    toilet shelf drawer cupboard stove fireplace chimney roof garage garden gate path bench statue fountain
    castle church school factory farm barn bridge tunnel station airport harbour beach island lake waterfall
    volcano desert forest field grass bush branch root mushroom cactus rose tulip nurse doctor teacher farmer
    soldier king queen pirate clown robot ghost angel hammer saw drill screw nail axe shovel rake rope chain
    lock magnet compass telescope microscope puppet doll balloon swing slide ball bat racket net ski skate
    surfboard anchor sail paddle tent map letter envelope stamp coin ticket newspaper poster painting photo
"""
_NOUNS_HELD_OUT = """
    dog bus bicycle spoon guitar elephant sofa phone monkey bucket ship carrot
"""
ELSEWHERE, ELSEWHERE_HELD_OUT = tuple(dict.fromkeys(_NOUNS.split())), tuple(_NOUNS_HELD_OUT.split())
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


def following(rng: random.Random, scene: Scene) -> QA | None:
    """Ask for the neighbour of a thing on its left or right, in the order of `description`."""
    unique = _unique(scene, lambda thing: thing.name)
    steps = [("right", a, b) for a, b in pairwise(scene.things)] + [("left", b, a) for a, b in pairwise(scene.things)]
    clear = [step for step in steps if step[1] in unique and abs(step[1].x - step[2].x) > NEAR * scene.width]
    if not clear:
        return None
    side, thing, other = rng.choice(clear)
    return rng.choice(NEXT[side]).format(thing.name), article(other.name)


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
IN_TRAINING: dict[str, tuple[Maker, ...]] = {**TASKS, "absent_things": (absent_thing,), "following": (following,)}
"""What training draws from instead: nothing held out, and what leads to lists."""

ONCE = {describe, count_all, name}
"""Makers with one answer a scene: asking again in other words teaches nothing."""

MIX = {"description": 1.8, "naming": 0.6, "position": 1.0, "colours": 0.8, "shapes": 0.4, "counting": 2.0,
       "counting_kinds": 1.5, "location": 0.8, "relations": 1.2, "yes_no": 1.7, "size": 1.0, "absent": 0.2,
       "absent_things": 0.9, "following": 1.2}  # fmt: skip
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
        spelled(
            "[what|which] [land use|kind of land|type of land|land] is [this|it|here|shown here|seen here]?",
            "what does this satellite picture show?",
            "[what|which] [kind|type] of land does the satellite see?",
            "[name|classify|give|say] the [kind|type|use] of [the |]land.",
            "what is the land used for?",
            "how is [the|this] land used?",
            "what do you see from [above|space]?",
        ),
        "a satellite picture: {}.", "satellite picture"),
    "flowers": PhotoQuestions(
        spelled(
            "[what|which|what kind of|what sort of|what type of] flower is [this|it|that|here|shown here]?",
            "[name|identify|classify] [the|this] flower.",
            "the flower is [called what|what|of what kind]?",
            "what [is|do you call] [the|this] flower [called|]?",
            "[what sort of|what kind of] flower can [you|we|i] see?",
            "[what|which] [plant|blossom] is [this|it]?",
            "how is the flower called?",
        ),
        "a flower: {}.", "flower"),
    "objects": PhotoQuestions(
        spelled(
            "what [object|thing|] is [this|that|in this photo|shown here]?",
            "what is this [object|thing]?",
            "[which|what] [object|thing] is in the [photo|image]?",
            "[name|identify|classify] [the|this] [object|thing] [in the photo|].",
            "what can be seen in the photo?",
            "the photo shows what?",
            "what is the [object|thing] called?",
        ),
        "a photo: {}.", "object"),
    "grocery": PhotoQuestions(
        spelled(
            "[what|which] [product|grocery product|grocery|item|food] is [this|it|shown here]?",
            "[name|identify|classify] [the|this] [product|item].",
            "what [food|product] is in the photo?",
            "what is the [product|item] called?",
            "[which|what] product can [you|we|i] see?",
        ),
        "groceries: {}.", "product",
        spelled(
            "[what|which] [kind|sort|type] of groceries [are these|is this|is it|can you see]?",
            "[what|which] [kind|sort|type] of food is [this|it|in the photo|here]?",
            "[name|give|say] the [kind|sort|type] of groceries.",
        )),
    "trash": PhotoQuestions(
        spelled(
            "[what|which] material is [this|it|that|used here]?",
            "[what|which] [kind|sort|type] of [waste|trash|rubbish] is [this|it]?",
            "[which|what] bin does [this|it] belong [to|in]?",
            "what is [this|the] [waste|thing|rubbish] made of?",
            "[name|give|say|identify] the material.",
            "what sort of waste can you see?",
            "of [which|what] material is it?",
        ),
        "waste: {}.", "piece of waste"),
    "signs": PhotoQuestions(
        spelled(
            "[which|what] [digit|number] does [the|this] hand [sign|] [show|mean|stand for]?",
            "[which|what] [number|digit] is the hand [showing|signing]?",
            "[name|read|give|say] the [digit|number].",
            "what [digit|number] is [this|it]?",
            "the hand shows [which|what] [number|digit]?",
            "what does the hand [show|mean|say]?",
        ),
        "a hand sign: {}.", "hand sign"),
    "cards": PhotoQuestions(
        spelled(
            "[which|what] [|playing ]cards [are these|do you see|are here|can you see|are shown]?",
            "[name|read|list] the playing cards.",
        ),
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


def spoken(rng: random.Random, question: str, words: Sequence[str] = ()) -> str:
    """Put idle words around one question in three, or around one in two where they may be any of `words` too.

    A model that met few idle words takes others for the question.
    """
    before, after = (1 / 4, 1 / 3) if words else (1 / 6, 1 / 5)
    if rng.random() < before:
        question = f"{_idle(rng, BEFORE, words)} {question}"
    if rng.random() < after:
        question = f"{question} {_idle(rng, AFTER, words)}"
    return question


def _idle(rng: random.Random, known: Sequence[str], words: Sequence[str]) -> str:
    """Draw what is known to be said, or, as often where there are `words`, up to five of them and of `LINKS`."""
    if not words or rng.random() < 0.5:
        return rng.choice(known)
    said = [rng.choice(rng.choice((LINKS, words))) for _ in range(rng.randint(1, 5))]
    return " ".join(said) + rng.choice((".", ".", "", "!", ","))


def vary(rng: random.Random, question: str) -> str:
    """Write a question as people do: sometimes with a capital, sometimes without its last mark."""
    if rng.random() < 0.3:
        question = question[0].upper() + question[1:]
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    return question
