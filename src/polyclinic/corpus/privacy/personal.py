"""Find what points at a person in one text: spans with their class.

Two ways: a shape that tells itself (an address with @, a number with check digits), or a word that
announces a number or a date (`data/privacy.yaml`), with what follows it. Digits of every script
count as digits. Names of persons are not looked for.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from ipaddress import ip_address
from typing import Any, NamedTuple

import yaml

from polyclinic.corpus.privacy import id_numbers

DAYS, MONTHS = 31, 12
# Finds hold two characters of these, and begin, with the word before them, at most so many characters earlier.
SIGN = re.compile(r"\d[\d/／@＠]*|[@＠]|\.[a-z]{2,3}[/／]|[/／]{2}|[(\[] ?(?:at|AT|arroba)")
BEFORE, BEHIND = 110, 80
DATES = frozenset({"BIRTH_DATE", "CARE_DATE"})
SHORT = 5  # a Latin word up to this long must end where the word ends
# Scripts without spaces, or with prefixes grown together with the word.
UNSPACED = re.compile("[\u0600-\u06ff\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

START = re.compile(r"[+(A-Z\d](?<![A-Za-z0-9].)(?<![A-Za-z0-9][./_,=-].)")
LIKELY = re.compile(r"[+(]?(?:[A-Z]{1,6}[ -]?)?\d(?:[ ./()+-]{0,2}[0-9A-Za-z]){7}|[A-HJ-NPR-Z\d]{17}")
END = re.compile(r"(?![A-Za-z0-9])(?![.,-]\d)")
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d ?(?:[A-Z0-9]{4} ?){2,7}[A-Z0-9]{0,4}(?![A-Za-z0-9])")
DOT, AT = r"(?:\.| ?[(\[] ?dot ?[)\]] ?)", r"(?:@| ?[(\[] ?(?:at|AT|arroba) ?[)\]] ?)"
EMAIL = re.compile(
    rf"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+'-]{{1,64}}{AT}"
    rf"[A-Za-z0-9-]{{1,63}}(?:{DOT}[A-Za-z0-9-]{{1,63}}){{0,4}}{DOT}[A-Za-z]{{2,24}}"
)
IPV4 = re.compile(r"(?<![A-Za-z0-9_.-])\d{1,3}(?:\.\d{1,3}){3}(?![A-Za-z0-9_-]|\.\d)")
IPV6 = re.compile(
    r"(?<![A-Za-z0-9_.])(?:::|[0-9A-Fa-f]{1,4}:)(?:[0-9A-Fa-f]{0,4}:){2,6}[0-9A-Fa-f]{1,4}(?![A-Za-z0-9_:])"
)
MAC = re.compile(
    r"(?<![A-Za-z0-9_])(?<![A-Fa-f0-9][:-])[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}(?![A-Za-z0-9_:-])"
)
PERSONAL_PATH = (
    r"https?://[^\s/]{1,100}(?:/[^\s?#]{0,200})?(?:/~[A-Za-z][\w.-]+"
    r"|/(?:patients?|users?|members?|people|profiles?)/[\w%-]{2,}"
    r"|[?&](?:patient|user|mrn|name|email|phone|dob|ssn|member)(?:_?id|name)?=[^\s&#]+)[^\s]*"
)
SEPARATOR = r"[ ./()-]"
NUMBER = re.compile(
    r"[+#]?\(?(?:[A-Z]{1,5}[ ./-]?){0,2}\(?\d[0-9A-Z]*"
    rf"(?:{SEPARATOR}{{1,2}}(?:[A-Z]{{1,3}})?{SEPARATOR}?(?=[0-9])[0-9A-Z]+|[ -][A-Z]{{1,3}}(?![\w]))*"
)
CAPITAL = "[A-ZА-ЯЁ]"
PLATE = re.compile(
    r"(?:[A-HJ-NPR-Z\d]{17}|[一-龥][A-Z][·. -]?[0-9A-Z]{5,6}|[一-龥]{1,4} ?\d{2,3} ?[ぁ-ん] ?\d{1,4}(?:-\d\d)?"
    r"|(?:[가-힣]{2} ?)?\d{2,3} ?[가-힣] ?\d{4}|(?<![ก-๛])\d?[ก-ฮ]{2,3}[ -]?\d{1,4}"
    r"|\d{3,7}(?:[ -]{0,3}[ء-ۿ](?![ء-ۿ])){1,3}|(?<![ء-ۿ])(?:[ء-ۿ] ){1,3}\d{3,4}"
    rf"|{CAPITAL}{{1,3}}(?:[ -]{CAPITAL}{{1,2}})?[ -]?\d{{2,4}}(?:[ -]?(?:{CAPITAL}|\d){{1,4}}){{0,3}}"
    rf"|\d{{1,4}}[ -]?{CAPITAL}{{1,3}}(?:[ .-]?(?:{CAPITAL}|\d){{1,5}}){{0,3}})(?![A-Za-zА-Яа-я0-9])"
)
PART = r"[^\d\n;!?%<>=()\[\]]"
DATE = re.compile(
    rf"(?:昭和|平成|令和|大正)?\d{{1,4}}{PART}{{1,9}}\d{{1,2}}{PART}{{1,9}}\d{{1,4}}(?:日|일)?(?!\d)"
    rf"|\d{{1,2}}(?:{PART.replace('%', ',%')}{{1,24}},? ?|, ?)\d{{4}}(?!\d)"
)
# Dates, years, ranges, decimals: no number of a person, whatever word stands before.
QUANTITY = re.compile(
    r"(?:[A-Z0-9]+ )?(?:19|20)\d\d(?:[ ./-]{1,3}(?:(?:19|20)?\d\d|[01]?\d[./-][0-3]?\d))?$"
    r"|[0-3]?\d[./-][01]?\d[./-](?:19|20)\d\d$|\d+0-\d+0$|\d{2,3}-\d{2,3}/\d{2,3}$|\d{1,2}\.\d{1,2}(?:-\d{1,2}\.\d{1,2})?$"
)
UNIT = re.compile(
    r"[,.]\d| ?(?:%|°|µ|mg|ml|kg|g\b|mm|cm|km|iu\b|u/|copies|cells|people|persons|cases|patients|doses|years|million"
    r"|€|\$|usd|eur|人|例|名|歳|岁|명|คน|लोग|человек|شخص)",
    re.IGNORECASE,
)
HANDLE = re.compile(r"@[A-Za-z0-9_.-]{2,30}|[a-z][a-z0-9._]{0,30}[0-9_][a-z0-9._]{0,30}")
BACK = r"[^\d\n.;,!?。]{1,16}$"  # between a value and a word that comes after it
BACKWARD = 48
GAP = r"(?:[ :]*\n[ :]*|[^\d\n]{0,40}?)"
MONTH_BEFORE = re.compile(r"[^\W\d_]{3,12}\.? $")


Number = tuple[str, re.Pattern[str], Callable[[str], bool]]


class Span(NamedTuple):
    """Where something personal stands in a text, and of which class it is."""

    start: int
    end: int
    kind: str


class Rules(NamedTuple):
    """The table `data/privacy.yaml`, compiled."""

    numbers: tuple[Number, ...]
    number: re.Pattern[str]  # any of them, or nearly so
    digits: Mapping[str, tuple[int, int]]
    cues: Mapping[str, str]  # word -> class
    cue: Mapping[str, re.Pattern[str]]  # by first character
    begin: re.Pattern[str]  # where a word may begin
    not_after: re.Pattern[str]
    profile: re.Pattern[str]
    public_names: frozenset[str]
    public: re.Pattern[str]


@cache
def rules() -> Rules:
    """Return the table."""
    table = yaml.safe_load(resources.files("polyclinic.data").joinpath("privacy.yaml").read_text("utf-8"))
    cues = {fold(w): kind for kind, by in table["cues"].items() for words in by.values() for w in words}
    firsts = "".join(sorted({word[0] for word in cues}))
    words = "|".join(re.escape(w) for w in table["not_after"])
    return Rules(
        tuple(
            (n["class"], re.compile(f"(?:{n['shape']})"), id_numbers.check(n.get("check"))) for n in table["numbers"]
        ),
        re.compile("|".join(re.sub(r"\(\[[^]]+\]\??\)|\\1", "[ .-]?", n["shape"]) for n in table["numbers"])),
        {kind: (low, high) for kind, (low, high) in table["digits"].items()},
        cues,
        {first: re.compile(trie(w for w in cues if w[0] == first)) for first in firsts},
        re.compile(f"(?<![^\\W_])[{firsts}]|[{''.join(filter(UNSPACED.match, firsts))}]"),
        re.compile(rf"(?<![a-z])(?:{words})[ :.#-]*$"),
        re.compile(
            rf"(?<![A-Za-z0-9-])(?:https?://)?(?:[A-Za-z0-9-]{{1,40}}\.)?(?:{'|'.join(table['profiles'])})"
            r"@?([A-Za-z0-9_.%-]{2,40})[^\s,;)]{0,200}"
        ),
        frozenset(table["public_names"]),
        re.compile("|".join(table["public"])),
    )


def classes() -> list[str]:
    """Return the names of all classes, sorted."""
    known = rules()
    return sorted({*known.cues.values(), *(kind for kind, _, _ in known.numbers), "EMAIL", "IP", "PROFILE_URL"})


def trie(words: Iterable[str]) -> str:
    """Return a pattern of all words that takes the longest; its first characters are tried once."""
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return _branches(tree)


def _branches(node: Mapping[str, Any]) -> str:
    found = [re.escape(char) + _branches(rest) for char, rest in sorted(node.items()) if char]
    if not found:
        return ""
    whole = found[0] if len(found) == 1 and "" not in node else f"(?:{'|'.join(found)})"
    return whole + ("?" if "" in node else "")


@cache
def _plain() -> dict[int, str]:
    """Return digits of all scripts, wide forms and dashes with the ASCII character they stand for."""
    table = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0xA0: " ", 0x202F: " "}
    table |= {code: "-" for code in (*range(0x2010, 0x2016), 0x2212, 0xFE63)}
    table[0xFF0D] = "-"
    digits = ((code, unicodedata.decimal(chr(code), None)) for code in range(0x80, 0x20000))
    return table | {code: str(digit) for code, digit in digits if digit is not None}


def fold(text: str) -> str:
    """Return a text of the same length with digits, wide forms and dashes in ASCII."""
    return text if text.isascii() else text.translate(_plain())


def _lower(text: str) -> str:
    found = text.lower()
    return found if len(found) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def find(text: str) -> list[Span]:
    """Return what points at a person, in order, without overlaps.

    Of overlapping finds one span remains that covers them all; the word before a number says its
    class rather than its shape.
    """
    places = list(_places(text))
    plain = _within(text, places, fold)
    low = _within(plain, places, _lower)
    ways = (_alone, _announced, _addresses)
    found = sorted(
        (span.start, span.end, rank, span.kind)
        for place in places
        for rank, way in enumerate(ways)
        for span in way(plain, low, *place)
    )
    out: list[tuple[Span, int]] = []
    for start, end, rank, kind in found:
        if out and start < out[-1][0].end:
            last, before = out[-1]
            out[-1] = (Span(last.start, max(last.end, end), kind if rank > before else last.kind), max(rank, before))
        else:
            out.append((Span(start, end, kind), rank))
    return [span for span, _ in out]


def _places(text: str) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a text that can hold finds; each is searched on its own."""
    first, last, signs = 0, -1, 0
    for m in SIGN.finditer(text):
        if m.start() - BEFORE > last:
            if signs > 1:
                yield first, last
            first, signs = max(0, m.start() - BEFORE), 0
        last = m.end() + BEHIND
        signs += m.end() - m.start() + (text[m.start()] in "@＠")
    if signs > 1:
        yield first, last


def _within(text: str, places: Iterable[tuple[int, int]], change: Callable[[str], str]) -> str:
    """Return a text changed in some places, which keep their length; elsewhere it would cost time for nothing."""
    pieces, past = [], 0
    for first, last in places:
        pieces += [text[past:first], change(text[first:last])]
        past = last
    return "".join((*pieces, text[past:]))


def _addresses(plain: str, low: str, first: int, last: int) -> Iterator[Span]:
    """Yield e-mail, network and page addresses."""
    known = rules()
    if "@" in plain or "(" in plain or "[" in plain:
        yield from (Span(m.start(), m.end(), "EMAIL") for m in EMAIL.finditer(plain, first, last))
    if "/" in plain:
        for m in known.profile.finditer(plain, first, last):
            if m.group(1).lower() not in known.public_names:
                yield Span(m.start(), m.end(), "PROFILE_URL")
        yield from (Span(m.start(), m.end(), "PROFILE_URL") for m in _personal_path().finditer(plain, first, last))
    for m in IPV4.finditer(plain, first, last):
        if _is_address(m.group()) and not known.not_after.search(plain[max(0, m.start() - 12) : m.start()].lower()):
            yield Span(m.start(), m.end(), "IP")
    if ":" in plain or "-" in plain:
        yield from (Span(m.start(), m.end(), "IP") for m in IPV6.finditer(plain, first, last) if _is_address(m.group()))
        yield from (Span(m.start(), m.end(), "DEVICE") for m in MAC.finditer(plain, first, last))


@cache
def _personal_path() -> re.Pattern[str]:
    return re.compile(PERSONAL_PATH)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return sum(char.isalnum() for char in text) > 6  # noqa: PLR2004 - 1.2.3.4 is a section of a text


def _alone(plain: str, low: str, first: int, last: int) -> Iterator[Span]:
    """Yield numbers that tell themselves by shape and check digits."""
    known = rules()
    past = 0
    for start in (m.start() for m in START.finditer(plain, first, last)):
        if start < past or not LIKELY.match(plain, start) or not known.number.match(plain, start):
            continue
        if known.not_after.search(low[max(0, start - 12) : start]):
            continue
        end, kind = max((_longest(plain, start, number) for number in known.numbers), default=(0, ""))
        if end and not _public(kind, plain[start:end]):
            past = end
            yield Span(start, end, kind)
    for m in IBAN.finditer(plain, first, last):
        if length := id_numbers.iban(m.group()):
            yield Span(m.start(), m.start() + length, "BANK_ACCOUNT")


def _longest(plain: str, start: int, number: Number) -> tuple[int, str]:
    """Return where a number of one kind ends that starts here, 0 where there is none."""
    kind, shape, check = number
    m = shape.match(plain, start)
    return (m.end(), kind) if m and END.match(plain, m.end()) and check(m.group()) else (0, "")


def _public(kind: str, number: str) -> bool:
    """Say whether a phone number is a help line's."""
    digits = "".join(filter(str.isdigit, number))
    return kind == "PHONE" and rules().public.fullmatch(digits) is not None


def _announced(plain: str, low: str, first: int, last: int) -> Iterator[Span]:
    """Yield what follows a word that announces it; of two words the nearer one says the class."""
    known = rules()
    found: Span | None = None
    past = 0
    for start in (m.start() for m in known.begin.finditer(low, first, last)):
        pattern = known.cue[low[start]] if start >= past else None
        m = pattern.match(low, start) if pattern else None
        if m is None or not _ends(low, start, m.end()):
            continue
        past = m.end()
        if found and found.start <= start < found.end:
            past = found.end  # what is found holds no words
            continue
        kind = known.cues[m.group()]
        span = _value(plain, low, past, kind) or _value_before(plain, low, m, kind)
        if span and found and span.start < found.end:
            found = span
        elif span:
            if found:
                yield found
            found = span
    if found:
        yield found


def _ends(low: str, start: int, end: int) -> bool:
    """Say whether a match ends where a word does, or where that is as good: longer words are often inflected."""
    longer = end - start > SHORT or end == len(low) or not low[end].isalnum()
    return longer or bool(UNSPACED.match(low[start]) or UNSPACED.match(low[end]))


def _shape(kind: str) -> str:
    return (HANDLE if kind == "HANDLE" else DATE if kind in DATES else PLATE if kind == "VEHICLE" else NUMBER).pattern


@cache
def _after(kind: str) -> re.Pattern[str]:
    return re.compile(f"{GAP}({_shape(kind)})")


@cache
def _before(kind: str) -> re.Pattern[str]:
    return re.compile(f"(?<![A-Za-z0-9.,/-])({_shape(kind)}){BACK}")


def _value(plain: str, low: str, at: int, kind: str) -> Span | None:
    """Return the number, date or handle that follows a word, or None where that is something else."""
    m = _after(kind).match(plain, at)
    return _judged(plain, low, Span(*m.span(1), kind), at) if m else None


def _value_before(plain: str, low: str, word: re.Match[str], kind: str) -> Span | None:
    """Return what stands just before a word (`123456 is her file number`), if the word is a sure one."""
    end = word.start()
    first = max(0, end - BACKWARD)
    if word.end() - end <= SHORT - 2 * bool(UNSPACED.match(word.group())):
        return None
    m = _before(kind).search(plain, first, end)
    return _judged(plain, low, Span(*m.span(1), kind), first) if m else None


def _judged(plain: str, low: str, span: Span, at: int) -> Span | None:
    """Return a value if it can be one of its class, a month before it included."""
    start, end, kind = span
    value = plain[start:end]
    if kind == "HANDLE":
        named = value[0] == "@" or len(value) >= SHORT
        return span if named and value.strip("@.").lower() not in rules().public_names else None
    if kind in DATES:
        if not _is_date(value):
            return None
        month = MONTH_BEFORE.search(low, max(at, start - 14), start) if value[:2].strip(" ,").isdigit() else None
        return Span(month.start() if month else start, end, kind)
    few, many = rules().digits[kind]
    if not few <= sum(map(str.isdigit, value)) <= many or QUANTITY.match(value.lstrip("+#( ")):
        return None
    if _cited(low, start, re.match(r"\D*", value)):
        return None
    unfit = UNIT.match(plain, end) or _public(kind, value) or (kind == "VEHICLE" and value.isdigit())
    return None if unfit else span


def _cited(low: str, start: int, letters: re.Match[str] | None) -> bool:
    """Say whether a number is of an article or study: by the word before it, or the letters it begins with."""
    end = start + (letters.end() if letters else 0)
    m = rules().not_after.search(low[max(0, start - 12) : end])
    return m is not None and len(m.group().strip(" :.#-")) > 2  # noqa: PLR2004 - V and EC begin passports, too


def _is_date(text: str) -> bool:
    """Say whether the numbers of a text can be a day, a month and a year, or a day and a year."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    year = max(numbers) if max(numbers) > DAYS else numbers[-1]
    numbers.remove(year)
    return all(0 < number <= DAYS for number in numbers) and (len(numbers) == 1 or min(numbers) <= MONTHS)
