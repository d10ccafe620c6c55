"""What is printed: dates, numbers, codes, money, names, addresses, goods.

Names and goods come in two tuples, training and held out; dates and numbers are too many to be learned by heart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .drawn import Stock

Parts = tuple[tuple[str, ...], tuple[str, ...]]
"""What training draws from, and what is held out."""

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"  # without I, O and Q, which some fonts print like digits


def split(text: str) -> Parts:
    """Hold every fifth of a text's parts, which stand between commas, out of training."""
    names = [name.strip() for name in text.split(",")]
    return tuple(n for i, n in enumerate(names) if i % 5 != 2), tuple(n for i, n in enumerate(names) if i % 5 == 2)


FIRST_NAMES = split(
    "Anna, Ben, Clara, David, Elena, Frank, Grace, Henry, Iris, Jack, Karen, Leo, Maria, Nora, Oscar, Paula, Quinn, "
    "Rosa, Simon, Tara, Umar, Vera, Walter, Yara, Zoe, Alice, Bruno, Carlos, Diana, Erik, Fatima, George, Hannah, "
    "Ivan, Julia, Kofi, Linda, Marco, Nadia, Olga, Pedro, Rachel, Samuel, Teresa, Victor, Wendy, Adam, Bella, Chen, "
    "Dora, Emil, Fiona, Gita, Hugo, Ines, Jonas, Kira, Liam, Mona"
)
SURNAMES = split(
    "Adams, Baker, Costa, Diaz, Evans, Fischer, Garcia, Hughes, Ibrahim, Jensen, Keller, Lopez, Meyer, Novak, Olsen, "
    "Patel, Quist, Rossi, Silva, Turner, Ulrich, Vogel, Walsh, Young, Zhang, Archer, Brown, Clarke, Dubois, Egan, "
    "Foster, Green, Hansen, Iyer, Johnson, Kim, Lewis, Moreau, Nakamura, Okafor, Parker, Reed, Schmidt, Taylor, "
    "Urban, Vargas, Weber, Yilmaz, Ziegler, Abbot, Bishop, Carter"
)
CITIES = split(
    "London, Paris, Berlin, Madrid, Dublin, Oslo, Vienna, Lisbon, Prague, Warsaw, Boston, Denver, Austin, Seattle, "
    "Chicago, Toronto, Sydney, Perth, Geneva, Zurich, Milan, Lyon, Porto, Leeds, Bristol, Oxford, Cork, Ghent, "
    "Utrecht, Bergen, Malmo, Turin, Dallas, Portland, Memphis, Nairobi, Accra, Lagos, Cairo, Delhi"
)
STREETS = split(
    "Oak, Maple, Station, Church, Park, Mill, High, King, Queen, River, Lake, Hill, Garden, Bridge, Market, Cedar, "
    "Elm, Forest, Harbour, Meadow, School, Spring, Sunset, Tower, Valley, Windsor, Abbey, Castle, Dock, Field"
)
STREET_KINDS = ("Street", "Road", "Lane", "Avenue", "St.", "Rd", "Ave", "Way")
COMPANY_KINDS = split("Ltd, Inc., LLC, GmbH, & Sons, Group, Trading, Supplies, Works, Studio")
SHOP_KINDS = split("Market, Foods, Store, Cafe, Bakery, Grocery, Corner Shop, Kiosk, Deli, Mart")
JOBS = split(
    "engineer, teacher, nurse, driver, chef, painter, lawyer, farmer, clerk, pilot, baker, designer, plumber, editor, "
    "welder"
)
FOODS = split(
    "milk, bread, butter, eggs, rice, sugar, salt, flour, tea, coffee, apples, bananas, oranges, grapes, lemons, "
    "carrots, onions, tomatoes, potatoes, spinach, cheese, yoghurt, cream, honey, jam, pasta, noodles, beans, "
    "lentils, olive oil, vinegar, pepper, chicken, salmon, tuna, beef mince, ham, tofu, orange juice, mineral water, "
    "cola, crisps, biscuits, dark chocolate, ice cream, cereal, oats, walnuts, almonds, raisins, soap, shampoo, "
    "toothpaste, batteries, light bulb, napkins, candles, cat food, paper towels, garlic"
)
GOODS = split(
    "desk lamp, office chair, printer paper, ink cartridge, usb cable, keyboard, monitor stand, notebook, stapler, "
    "whiteboard, web design, translation, consulting, window cleaning, garden work, roof repair, painting, delivery, "
    "installation, training day, steel bolts, copper wire, oak planks, floor tiles, door handle, paint bucket, work "
    "gloves, safety helmet, drill bits, phone case, head set, webcam, router, server rack, hosting, support hours, "
    "photo shoot, logo design, catering, hall rental"
)


def dated(rng: random.Random, years: tuple[int, int] = (1985, 2035)) -> str:
    """Write a day of these years in one of the usual ways."""
    year, month, day = rng.randint(*years), rng.randint(1, 12), rng.randint(1, 28)
    name = MONTHS[month - 1]
    return rng.choice((
        f"{day:02}/{month:02}/{year}", f"{month:02}/{day:02}/{year}", f"{year}-{month:02}-{day:02}",
        f"{day:02}.{month:02}.{year}", f"{day:02}-{month:02}-{year}", f"{day:02}.{month:02}.{year % 100:02}",
        f"{day} {name} {year}", f"{name} {day}, {year}", f"{day} {name[:3]} {year}", f"{name[:3]} {day}, {year}",
        f"{day:02}-{name[:3].upper()}-{year}", f"{day}/{month}/{year % 100:02}",
    ))  # fmt: skip


def timed(rng: random.Random) -> str:
    """Write a time of day."""
    hour, minute = rng.randint(0, 23), rng.randint(0, 59)
    half = f"{hour % 12 or 12}:{minute:02} {'am' if hour < 12 else 'pm'}"
    return rng.choice((f"{hour:02}:{minute:02}", f"{hour:02}:{minute:02}:{rng.randint(0, 59):02}", half, half.upper()))


def digits(rng: random.Random, n: int) -> str:
    """Draw `n` digits, the first of them not 0."""
    return str(rng.randint(10 ** (n - 1), 10**n - 1))


def code(rng: random.Random) -> str:
    """Draw a reference number of letters and digits."""
    letters = "".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 3)))
    first, second = digits(rng, rng.randint(2, 6)), digits(rng, rng.randint(2, 5))
    return rng.choice((f"{letters}-{first}", f"{letters}{first}", f"{first}-{second}", f"{first}/{second}",
                       f"{letters}-{first}-{second}", digits(rng, rng.randint(4, 8))))  # fmt: skip


def number(rng: random.Random) -> str:
    """Write a number in one of the usual ways: whole, in thousands, decimal, per cent, signed, or money."""
    whole = digits(rng, rng.randint(1, 7))
    decimal = f"{digits(rng, rng.randint(1, 4))}.{rng.randrange(10 ** (places := rng.randint(1, 3))):0{places}}"
    amount = Money.drawn(rng).text(rng.randint(5, 10 ** rng.randint(3, 7)))
    return rng.choice((whole, whole, f"{int(whole):,}", decimal, decimal, f"{rng.randint(0, 100)}%", amount,
                       f"{rng.choice('-+')}{decimal}", f"{rng.randint(0, 99)}.{rng.randint(0, 9)}%"))  # fmt: skip


def phone(rng: random.Random) -> str:
    """Write a telephone number that nobody has."""
    last = f"01{rng.randint(0, 99):02}"
    area, country = digits(rng, 3), rng.randint(1, 99)
    return rng.choice((f"555-{last}", f"({area}) 555-{last}", f"+{country} {area} 555 {last}", f"0{area} 555 {last}"))


@dataclass(frozen=True)
class Money:
    """How amounts are written: the currency's sign before or behind, the decimal mark, the mark of thousands."""

    sign: str
    is_before: bool
    decimal: str = "."
    thousands: str = ","

    @classmethod
    def drawn(cls, rng: random.Random) -> Money:
        """Draw a currency and how it is written."""
        style = rng.random()
        if style < 0.4:
            return cls(rng.choice(("$", "£", "€")), True)
        if style < 0.6:
            return cls(" €", False, ",", ".")
        if style < 0.75:
            return cls(rng.choice(("USD ", "CHF ", "EUR ", "GBP ", "Rs ", "CA$")), True)
        if style < 0.85:
            return cls(rng.choice((" kr", " EUR", " USD", " SEK", " zl")), False)
        return cls("", True, ".", rng.choice((",", "")))

    def text(self, cents: int, bare: bool = False) -> str:
        """Write an amount of hundredths; `bare` without the currency."""
        number = f"{cents // 100:,}".replace(",", self.thousands) + f"{self.decimal}{cents % 100:02}"
        if bare:
            return number
        return self.sign + number if self.is_before else number + self.sign


def person(rng: random.Random, stock: Stock) -> str:
    """Draw a first name and a surname."""
    return f"{stock.one_of(rng, *FIRST_NAMES)} {stock.one_of(rng, *SURNAMES)}"


def company(rng: random.Random, stock: Stock, kinds: Parts = COMPANY_KINDS) -> str:
    """Draw a company's name, of a surname or a word of this part."""
    name = stock.one_of(rng, *SURNAMES) if rng.random() < 0.5 else rng.choice(stock.words).capitalize()
    return f"{name} {stock.one_of(rng, *kinds)}"


def street(rng: random.Random, stock: Stock) -> str:
    """Draw a house number and a street."""
    return f"{rng.randint(1, 299)} {stock.one_of(rng, *STREETS)} {rng.choice(STREET_KINDS)}"


def email(rng: random.Random, stock: Stock) -> str:
    """Draw an address at a domain that is reserved for examples."""
    first, last = stock.one_of(rng, *FIRST_NAMES).lower(), stock.one_of(rng, *SURNAMES).lower()
    return f"{rng.choice((first, last, f'{first}.{last}'))}@example.{rng.choice(('com', 'org', 'net'))}"
