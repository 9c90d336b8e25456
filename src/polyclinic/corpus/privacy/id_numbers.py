"""Numbers with check digits: whether a string that looks like one of a person can be one.

The checks are python-stdnum's, which also knows dates and places inside such numbers; those that it
lacks are here.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module

VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", (*range(1, 9), *range(1, 6), 7, 9, *range(2, 10)), strict=True))
VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
VIN_LETTERS = 3  # at least: a run of digits is no vehicle


def vin(text: str) -> bool:
    """Say whether seventeen characters are a vehicle's number (check digit of 49 CFR 565.15)."""
    if sum(char.isalpha() for char in text) < VIN_LETTERS:
        return False
    values = [int(char) if char.isdigit() else VIN_VALUES[char] for char in text]
    rest = sum(weight * value for weight, value in zip(VIN_WEIGHTS, values, strict=True)) % 11
    return text[8] == "0123456789X"[rest]


def snils(text: str) -> bool:
    """Say whether a Russian insurance number has the check digits of its first nine."""
    digits = [int(char) for char in text if char.isdigit()]
    total = sum(weight * digit for weight, digit in zip(range(9, 0, -1), digits, strict=False))
    return digits[9] * 10 + digits[10] == total % 101 % 100


def luhn(text: str) -> bool:
    """Say whether digits, however parted, end in their Luhn digit (ISO/IEC 7812-1)."""
    from stdnum import luhn as known

    return bool(known.is_valid("".join(filter(str.isdigit, text))))


def phone(text: str) -> bool:
    """Say whether a number has as many digits as one with a country code (ITU-T E.164 has at most fifteen)."""
    return 8 <= sum(map(str.isdigit, text)) <= 15  # noqa: PLR2004


def iban(text: str) -> int:
    """Return how many of the leading characters are an account number, 0 where none are."""
    from stdnum import iban as known

    end = len(text)
    while end > 0:
        if known.is_valid(text[:end]):
            return end
        end = text.rfind(" ", 0, end)
    return 0


@cache
def check(name: str | None) -> Callable[[str], bool]:
    """Return a check by the name that the table of numbers gives; without a name all pass."""
    if name is None:
        return lambda text: True
    own = {"vin": vin, "snils": snils, "luhn": luhn, "phone": phone}
    found: Callable[[str], bool] = own.get(name) or import_module(f"stdnum.{name}").is_valid
    return found
