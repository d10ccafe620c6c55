"""What a document holds, before it is laid out: receipts, invoices, forms and tables, with sums that add up.

Amounts are whole hundredths of the currency. A record is drawn by how much it is to hold, from 0 (a few lines) to 1
(a full page).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from . import values
from .drawn import Stock
from .values import Money

TAX_RATES = (5, 6, 7, 8, 10, 12, 15, 19, 20, 21, 25)
MOST_ROWS = 18

LABELS: dict[str, tuple[str, ...]] = {
    "shop": ("",), "seller": ("", "", "From", "Seller"), "address": ("",), "seller address": ("",),
    "customer": ("Bill to", "Customer", "Client", "Sold to"), "customer address": ("Address",),
    "phone": ("Tel", "Phone", "Tel.", "Phone no."), "email": ("Email", "E-mail", "Mail"),
    "date": ("Date", "Date", "Issued", "Issue date"), "due date": ("Due date", "Due", "Payment due", "Pay by"),
    "time": ("Time",), "receipt number": ("Receipt", "Receipt no.", "Receipt #", "Bon no."),
    "invoice number": ("Invoice no.", "Invoice number", "Invoice #", "Inv. no.", "Invoice"),
    "order number": ("Order no.", "Order", "Order #", "P.O. number"), "cashier": ("Cashier", "Served by", "Operator"),
    "table number": ("Table", "Table no."), "subtotal": ("Subtotal", "Sub-total", "Net", "Sum"),
    "tax": ("Tax", "VAT", "Sales tax"), "total": ("Total", "TOTAL", "Total due", "Amount due", "Grand total"),
    "payment method": ("Paid by", "Payment", "Paid with"), "change": ("Change", "Change due"),
    "cash": ("Cash", "Given"),
}  # fmt: skip
PAYMENTS = ("Card", "Visa", "Mastercard", "Gift card", "Voucher", "Debit card")
NOTES = values.split(
    "Thank you!, Please come again, Thanks for your visit, Have a nice day, Payment within 30 days, "
    "Goods remain ours until paid, Returns within 14 days, Open daily from 8 to 20, Just call us, See you soon"
)
COLUMN_HEADERS: dict[str, tuple[str, ...]] = {
    "item": ("Item", "Description", "Article", "Product", "ITEM"),
    "quantity": ("Qty", "Quantity", "Pcs", "QTY", "Units"),
    "price": ("Price", "Unit price", "Each", "PRICE", "Rate"),
    "amount": ("Amount", "Sum", "AMOUNT", "Line total"),
}
SUMMED = ("stock", "score")
"""Columns whose numbers a table's last row may sum up."""
TITLES = values.split(
    "Registration Form, Membership Form, Job Application, Visitor Form, Order Form, Patient Form, Booking Form, "
    "Contact Details, Library Card, Entry Form, Customer Record, Rental Agreement, Staff Record, Travel Request"
)


@dataclass(frozen=True)
class Field:
    """Something with a name: how it is asked for, the label and the value as printed, and what it counts."""

    name: str
    label: str
    value: str
    count: Decimal | None = None


@dataclass(frozen=True)
class Column:
    """A column: how it is asked for, its header as printed, whether it holds numbers."""

    name: str
    header: str
    is_number: bool = False


@dataclass(frozen=True)
class Grid:
    """Rows under columns; the first column names the row. `counts` are what the cells count, as in `Field`."""

    nouns: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    counts: tuple[tuple[Decimal | None, ...], ...]
    last: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """A document's content; `missing` names fields that it could hold and does not."""

    kind: str
    title: str
    fields: tuple[Field, ...]
    grid: Grid | None = None
    sums: tuple[Field, ...] = ()
    note: str = ""
    missing: tuple[str, ...] = ()

    def rows(self) -> Grid:
        """Return the grid of a record that has one."""
        assert self.grid is not None  # receipts, invoices and tables have one
        return self.grid

    def others(self, *names: str) -> tuple[Field, ...]:
        """Return the fields that have none of these names."""
        return tuple(field for field in self.fields if field.name not in names)


def receipt(rng: random.Random, stock: Stock, amount: float) -> Record:
    """Draw what a till prints."""
    money = Money.drawn(rng)
    grid, paid = _bought(rng, stock, amount, values.FOODS, money, (49, 1500))
    fields = [
        _field(rng, "shop", values.company(rng, stock, values.SHOP_KINDS)),
        _field(rng, "date", values.dated(rng)),
    ]
    more, missing = _some(rng, amount, (
        ("address", lambda: values.street(rng, stock)), ("phone", lambda: values.phone(rng)),
        ("time", lambda: values.timed(rng)), ("receipt number", lambda: values.code(rng)),
        ("cashier", lambda: stock.one_of(rng, *values.FIRST_NAMES)),
        ("table number", lambda: values.digits(rng, rng.randint(1, 2))),
    ))  # fmt: skip
    sums = _sums(rng, paid, money, rng.random() < 0.3 + 0.5 * amount)
    total = sums[-1].count or Decimal(0)
    if rng.random() < 0.4:
        sums.append(_field(rng, "payment method", rng.choice(PAYMENTS)))
    elif rng.random() < 0.4:
        given = -(-int(total * 100) // 1000) * 1000
        sums.append(_amount(rng, "cash", given, money))
        sums.append(_amount(rng, "change", given - int(total * 100), money))
    return Record(
        "receipt", rng.choice(("Receipt", "", "")), (*fields, *more), grid, tuple(sums), _note(rng, stock), missing
    )


def invoice(rng: random.Random, stock: Stock, amount: float) -> Record:
    """Draw a bill between companies."""
    money = Money.drawn(rng)
    grid, paid = _bought(rng, stock, amount * 0.8, values.GOODS, money, (500, 90_000), all_columns=True)
    customer = values.person(rng, stock) if rng.random() < 0.5 else values.company(rng, stock)
    fields = [
        _field(rng, "seller", values.company(rng, stock)), _field(rng, "customer", customer),
        _field(rng, "invoice number", values.code(rng)), _field(rng, "date", values.dated(rng)),
    ]  # fmt: skip
    more, missing = _some(rng, amount, (
        ("seller address", lambda: f"{values.street(rng, stock)}, {stock.one_of(rng, *values.CITIES)}"),
        ("customer address", lambda: f"{values.street(rng, stock)}, {stock.one_of(rng, *values.CITIES)}"),
        ("due date", lambda: values.dated(rng)), ("order number", lambda: values.code(rng)),
        ("email", lambda: values.email(rng, stock)), ("phone", lambda: values.phone(rng)),
    ))  # fmt: skip
    title = rng.choice(("Invoice", "INVOICE", "Bill", "Tax Invoice"))
    sums = _sums(rng, paid, money, rng.random() < 0.7)
    return Record("invoice", title, (*fields, *more), grid, tuple(sums), _note(rng, stock), missing)


def form(rng: random.Random, stock: Stock, amount: float) -> Record:
    """Draw a form that was filled in."""
    makers: tuple[tuple[str, Callable[[], str]], ...] = (
        ("first name", lambda: stock.one_of(rng, *values.FIRST_NAMES)),
        ("last name", lambda: stock.one_of(rng, *values.SURNAMES)),
        ("date of birth", lambda: values.dated(rng, (1940, 2010))), ("street", lambda: values.street(rng, stock)),
        ("city", lambda: stock.one_of(rng, *values.CITIES)), ("postcode", lambda: values.digits(rng, 5)),
        ("phone number", lambda: values.phone(rng)), ("email", lambda: values.email(rng, stock)),
        ("occupation", lambda: stock.one_of(rng, *values.JOBS)), ("employer", lambda: values.company(rng, stock)),
        ("member number", lambda: values.code(rng)), ("start date", lambda: values.dated(rng)),
        ("contact person", lambda: values.person(rng, stock)), ("age", lambda: str(rng.randint(18, 90))),
        ("place of birth", lambda: stock.one_of(rng, *values.CITIES)), ("room", lambda: values.digits(rng, 3)),
        ("insurance number", lambda: values.code(rng)), ("number of guests", lambda: str(rng.randint(1, 12))),
        ("password hint", lambda: rng.choice(stock.words)), ("arrival time", lambda: values.timed(rng)),
        ("newsletter", lambda: rng.choice(("yes", "no"))), ("department", lambda: rng.choice(stock.words)),
    )  # fmt: skip
    n = 3 + int(amount * (len(makers) - 3))
    chosen = sorted(rng.sample(range(len(makers)), n)) if rng.random() < 0.7 else rng.sample(range(len(makers)), n)
    case = rng.choice((str.capitalize, str.capitalize, str.title, str.upper))
    fields = [
        Field(name, case(name), value := make(), _count(name, value)) for name, make in (makers[i] for i in chosen)
    ]
    missing = tuple(name for i, (name, _) in enumerate(makers) if i not in chosen)
    return Record("form", stock.one_of(rng, *TITLES), tuple(fields), note=_note(rng, stock), missing=missing)


def table(rng: random.Random, stock: Stock, amount: float) -> Record:
    """Draw a table of people, places, goods or words."""
    nouns, first, names = rng.choice((
        ("people", "name", lambda: values.person(rng, stock)),
        ("cities", "city", lambda: stock.one_of(rng, *values.CITIES)),
        ("products", "product", lambda: stock.one_of(rng, *values.FOODS)),
        ("words", "word", lambda: rng.choice(stock.words)), ("teams", "team", lambda: rng.choice(stock.words).title()),
    ))  # fmt: skip
    money = Money.drawn(rng)
    makers: tuple[tuple[str, Callable[[], str]], ...] = (
        ("price", lambda: money.text(rng.randint(50, 99_999))), ("stock", lambda: str(rng.randint(0, 500))),
        ("score", lambda: str(rng.randint(0, 99))), ("year", lambda: str(rng.randint(1950, 2030))),
        ("weight", lambda: f"{rng.randint(1, 90)}.{rng.randint(0, 9)} kg"),
        ("share", lambda: f"{rng.randint(0, 100)}%"),
        ("rating", lambda: f"{rng.randint(0, 9)}.{rng.randint(0, 9)}"), ("day", lambda: rng.choice(values.WEEKDAYS)),
        ("time", lambda: values.timed(rng)), ("code", lambda: values.code(rng)),
        ("room", lambda: values.digits(rng, 3)), ("manager", lambda: stock.one_of(rng, *values.FIRST_NAMES)),
        ("month", lambda: rng.choice(values.MONTHS)), ("group", lambda: rng.choice("ABCDEF")),
    )  # fmt: skip
    chosen = [makers[i] for i in sorted(rng.sample(range(len(makers)), 1 + int(rng.random() * (1 + 4 * amount))))]
    n = 2 + int(amount * rng.uniform(0.3, 1) * MOST_ROWS)
    rows = [(name, *(make() for _, make in chosen)) for name in _different(names, n)]
    is_number = [all(any(letter.isdigit() for letter in row[i]) for row in rows) for i in range(1 + len(chosen))]
    header = rng.choice((str.capitalize, str.capitalize, str.upper, str.lower))
    columns = tuple(Column(name, header(name), is_number[i]) for i, name in enumerate((first, *(c for c, _ in chosen))))
    counts = tuple(tuple(Decimal(cell) if cell.isdigit() else None for cell in row) for row in rows)
    grid = Grid(nouns, columns, tuple(rows), counts, _last(rng, columns, counts))
    return Record("table", rng.choice(("", f"List of {nouns}", f"{nouns.title()} {rng.randint(2010, 2030)}")), (), grid)


def _count(name: str, value: str) -> Decimal | None:
    return Decimal(value) if name in ("age", "number of guests") else None


def _last(
    rng: random.Random, columns: Sequence[Column], counts: Sequence[Sequence[Decimal | None]]
) -> tuple[str, ...]:  # fmt: skip
    """Return a last row with the sums of what can be summed up, or none."""
    names = [column.name for column in columns]
    if not set(SUMMED) & set(names) or rng.random() < 0.4:
        return ()
    return (
        "Total",
        *(
            str(sum(row[i] or 0 for row in counts)) if name in SUMMED else ""
            for i, name in enumerate(names[1:], start=1)
        ),
    )


def _bought(
    rng: random.Random, stock: Stock, amount: float, goods: values.Parts, money: Money, prices: tuple[int, int],
    all_columns: bool = False,
) -> tuple[Grid, int]:  # fmt: skip
    """Draw lines of goods; return them and what they cost together."""
    case = rng.choice((str.lower, str.capitalize, str.upper, str.title))
    style = 1.0 if all_columns else rng.random()
    names = (
        ("item", "amount")
        if style < 0.45
        else ("item", "quantity", "amount")
        if style < 0.65
        else tuple(COLUMN_HEADERS)
    )
    has_sign, paid = rng.random() < 0.5, 0
    rows: list[tuple[str, ...]] = []
    counts: list[tuple[Decimal | None, ...]] = []
    for name in _different(lambda: stock.one_of(rng, *goods), 1 + int(amount * MOST_ROWS)):
        n = 1 if "quantity" not in names or rng.random() < 0.4 else rng.randint(2, 12)
        each = rng.choice((rng.randint(*prices), rng.randint(*prices) // 50 * 50 + 50))
        paid += n * each
        row = {"item": case(name), "quantity": str(n), "price": money.text(each, not has_sign),
               "amount": money.text(n * each, not has_sign)}  # fmt: skip
        count = {"quantity": Decimal(n), "price": Decimal(each).scaleb(-2), "amount": Decimal(n * each).scaleb(-2)}
        rows.append(tuple(row[column] for column in names))
        counts.append(tuple(count.get(column) for column in names))
    headers = {name: rng.choice(headers) for name, headers in COLUMN_HEADERS.items()}
    if "price" not in names and rng.random() < 0.5:
        headers["amount"] = "Price"
    columns = tuple(Column(name, headers[name], name != "item") for name in names)
    return Grid("items", columns, tuple(rows), tuple(counts)), paid


def _sums(rng: random.Random, paid: int, money: Money, has_tax: bool) -> list[Field]:
    """Sum up: subtotal and tax where there is any, and the total last."""
    sums = []
    if has_tax:
        rate = rng.choice(TAX_RATES)
        tax = (paid * rate + 50) // 100
        label = rng.choice(LABELS["tax"]) + rng.choice(("", f" {rate}%", f" ({rate}%)"))
        sums = [_amount(rng, "subtotal", paid, money), _amount(rng, "tax", tax, money, label)]
        paid += tax
    return [*sums, _amount(rng, "total", paid, money)]


def _amount(rng: random.Random, name: str, cents: int, money: Money, label: str = "") -> Field:
    return Field(name, label or rng.choice(LABELS[name]), money.text(cents), Decimal(cents).scaleb(-2))


def _field(rng: random.Random, name: str, value: str) -> Field:
    return Field(name, rng.choice(LABELS[name]), value)


def _some(
    rng: random.Random, amount: float, makers: Sequence[tuple[str, Callable[[], str]]]
) -> tuple[list[Field], tuple[str, ...]]:
    """Draw fields, the more the more a document is to hold; return them and the names that were left out."""
    fields = [_field(rng, name, make()) for name, make in makers if rng.random() < 0.15 + 0.75 * amount]
    return fields, tuple(name for name, _ in makers if name not in {field.name for field in fields})


def _different(make: Callable[[], str], n: int) -> list[str]:
    """Draw up to `n` names of which none occurs twice, nor within another."""
    found: list[str] = []
    for _ in range(2 * n):
        name = make()
        if len(found) < n and not any(
            name.lower() in other.lower() or other.lower() in name.lower() for other in found
        ):
            found.append(name)
    return found


def _note(rng: random.Random, stock: Stock) -> str:
    return stock.one_of(rng, *NOTES) if rng.random() < 0.4 else ""


RECORDS: dict[str, Callable[[random.Random, Stock, float], Record]] = {
    "receipt": receipt,
    "invoice": invoice,
    "form": form,
    "table": table,
}
