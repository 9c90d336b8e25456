"""What a model wrote becomes the options it picked, or None: nothing could be read, or it says two things.

A letter in running text is no pick. It counts where it begins the answer and is set off (`B.`, `(B)`,
`B: ...`), where the words of the language introduce it (`The answer is B`), or as the only letter in
brackets of a short answer; the text of an option and yes and no count where they are the whole answer or begin it.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from polyclinic.evaluate.marks import Mark, Marks, marks_of, plain
from polyclinic.evaluate.option_texts import OptionTexts, option_texts
from polyclinic.evaluate.phrases import Phrases, phrases_of
from polyclinic.evaluate.protocol import Protocol

Reading = tuple[int, ...] | None  # None: nothing is said here; (): things that exclude each other
CONTRADICTION: tuple[int, ...] = ()
_COMMA = re.compile(r"[.]?\s*[,;/&+،、・]\s*")
_WORD_BEGINS = re.compile(r"(?:[;,،、]\s*|\s+)(?=\S)")
# Thai, Lao, Chinese, Japanese and Korean words follow without a space.
SHORT = 100  # characters of an answer whose letter may stand anywhere; longer ones speak of alleles (A) too
MOST = 20_000  # characters of an answer: a model may repeat itself without end
_SPACE = re.compile(r"\s+")
_BRACKET = re.compile(r"\s*(?=[(\[{【])")
_SET_OFF = re.compile(r"[.。、](?=\s|$|[\u0e00-\u0eff\u3040-\u9fff\uac00-\ud7af])|:|,(?=\s)|\s*[–—-](?=\s)")


def parse(
    raw: str, language: str, options: Sequence[str], several: bool = False, chain: bool = False
) -> tuple[int, ...] | None:
    """Return the positions of the picked options in order, or None where no pick can be read.

    `several`: more than one may be picked; `chain`: reasoning stands before, the last answer that is
    introduced counts. Raises DataError for a language without words.
    """
    answer = _Answer(language, options, several)
    text = answer.phrases.own_part(plain(raw[-MOST:] if chain else raw[:MOST]))
    reading = answer.last(text) if chain else answer.first(text)
    return reading or None


class _Answer:
    """How the answers to one question are read."""

    def __init__(self, language: str, options: Sequence[str], several: bool) -> None:
        self.marks: Marks = marks_of(language, len(options))
        self.phrases: Phrases = phrases_of(language)
        self.texts: OptionTexts = option_texts(language, tuple(options))
        self.several = several

    def first(self, text: str) -> Reading:
        """Read an answer without reasoning: its beginning and what it introduces must agree."""
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if not lines:
            return None
        found = [self.beginning(lines), *self.introduced(text)]
        if all(reading is None for reading in found) and len(text) <= SHORT:
            found = [self.in_brackets(text)]
        return _agreed(found)

    def last(self, text: str) -> Reading:
        """Read an answer behind its reasoning."""
        found = list(self.introduced(text))
        if found:
            return found[-1]
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        return self.region(lines[-1]) if lines else None

    def beginning(self, lines: Sequence[str]) -> Reading:
        """Read the first line, and the lines below it while they too begin with marks."""
        run = list(itertools.takewhile(lambda reading: reading is not None, map(self.region, lines)))
        if self.several and CONTRADICTION not in run:
            return tuple(sorted({pick for reading in run for pick in reading or ()})) or None
        return _agreed(run)

    def introduced(self, text: str) -> Iterator[tuple[int, ...]]:
        """Yield what is read behind each phrase that introduces an answer."""
        for region, begins in self.phrases.regions(text, self.texts.longest + SHORT):
            reading = self.region(region, within_sentence=not begins)
            if reading is not None:
                yield reading

    def region(self, text: str, within_sentence: bool = False) -> Reading:
        """Read one line, or what is left of it behind an introduction, which may be the middle of a sentence."""
        whole = self.texts.whole(text)
        text = self.phrases.without_option_word(text.strip())
        whole = self.texts.whole(text) if whole is None else whole
        first = self.marks.at(text, 0)
        if whole is None and first is not None and self.texts.whole(text[first.end :]) == first.option:
            return (first.option,)
        listed, end, loose = self.listed(text)
        bare = bool(listed) and self.phrases.ends_here(text[end:])
        if whole is not None:
            # The option "2" is meant by 2 rather than the second option; what "B" means beside an option "B" is open.
            digits = all(mark.digit for mark in listed)
            return CONTRADICTION if bare and not digits and {m.option for m in listed} != {whole} else (whole,)
        if not listed:
            return self.unmarked(text)
        goes_on = within_sentence and not listed[-1].small and not listed[-1].digit
        if not (bare or goes_on or _set_off(text, listed[-1]) or self.own_text_follows(text, end, listed)):
            return self.unmarked(text)
        picks = tuple(sorted({mark.option for mark in listed}))
        if loose or (len(picks) > 1 and not self.several):
            return CONTRADICTION
        return picks if bare else self.consistent(picks, text, end)

    def unmarked(self, text: str) -> Reading:
        """Read letters without anything between, several options by their texts, and yes or no."""
        bare = text.strip(" \t.。।!！,;:")
        glued = [self.marks.letters.get(char) for char in bare]
        if self.several and len(set(glued)) == len(glued) > 1 and None not in glued and not bare.islower():
            return tuple(sorted(place for place in glued if place is not None))
        if self.several:
            parts = [self.texts.whole(part) for part in re.split(r"\s*[;\n,،、]\s*", bare)]
            if None not in parts:
                return tuple(sorted({part for part in parts if part is not None}))
        place = self.texts.yes_or_no(text)
        return None if place is None else (place,)

    def listed(self, text: str) -> tuple[list[Mark], int, bool]:
        """Return the marks at the beginning of a text, where they end, and whether `or` stands between them."""
        found: list[Mark] = []
        end, loose, start = 0, False, 0
        while (mark := self.marks.at(text, start)) is not None:
            found.append(mark)
            end = mark.end
            apart, joined = self.phrases.or_at(text, end), self.phrases.and_at(text, end)
            between = _COMMA.match(text, end) or (_BRACKET if mark.closed else _SPACE).match(text, end)
            start = next((at for at in (apart, joined, between and between.end()) if at), -1)
            if start < 0 or self.marks.at(text, start) is None:
                break
            loose = loose or apart is not None
        return found, end, loose

    def own_text_follows(self, text: str, end: int, listed: Sequence[Mark]) -> bool:
        """Say whether the words behind a letter begin with its option: `B aspirin`."""
        return len(listed) == 1 and self.texts.begins(text[end:]) == listed[0].option

    def consistent(self, picks: tuple[int, ...], text: str, end: int) -> Reading:
        """Return the picks and those named further on, unless they exclude each other (`E. coli` may be no pick)."""
        behind = self.texts.whole(text[end:])
        if behind is not None:
            return picks if behind in picks else CONTRADICTION
        named = self.texts.begins(text)
        if named is not None and named not in picks:
            return CONTRADICTION
        all_picks = tuple(sorted({*picks, *self.further(text[end:])}))
        return all_picks if self.several or len(all_picks) == 1 else CONTRADICTION

    def further(self, text: str) -> Iterator[int]:
        """Yield the options whose letters are set off in the words behind the first: `A: aspirin; C: heparin`."""
        for match in _WORD_BEGINS.finditer(text):
            mark = self.marks.at(text, match.end())
            if mark is None or mark.small or mark.digit:
                continue
            listed = match.group() != "" and match.group()[0] in ";,،、"
            if mark.closed or text[mark.end : mark.end + 1] == ":" or (listed and _set_off(text, mark)):
                yield mark.option

    def in_brackets(self, text: str) -> Reading:
        """Read the only letter that stands in brackets anywhere."""
        found = (self.marks.at(text, match.start()) for match in re.finditer(r"[(\[][^()\[\]]{1,2}[)\]]", text))
        picks = {mark.option for mark in found if mark is not None and not mark.digit and not mark.small}
        return (picks.pop(),) if len(picks) == 1 else None


def _set_off(text: str, mark: Mark) -> bool:
    """Say whether a mark is followed by what sets a letter off from words."""
    if mark.closed:
        return True
    found = _SET_OFF.match(text, mark.end)
    return found is not None and not (mark.digit and found.group().strip() in "–—-,")


def _agreed(found: Sequence[Reading]) -> Reading:
    """Return the one thing that several places say."""
    said = {reading for reading in found if reading is not None}
    if len(said) > 1:
        return CONTRADICTION
    return said.pop() if said else None


_PAPER_ARABIC = (("A", "أ"), ("B", "ب"), ("C", "[سك]"), ("D", "د"))


def read(raw: str, language: str, options: Sequence[str], several: bool, protocol: Protocol) -> tuple[int, ...] | None:
    """Return the positions that a protocol reads of a written answer, or None."""
    if protocol.majority_letter:
        return parse_paper(raw, options)
    return parse(raw, language, options, several, protocol.scoring == "chain")


def parse_paper(raw: str, options: Sequence[str]) -> tuple[int, ...] | None:
    """Return the pick as the evaluation scripts of arXiv 2410.10626 read it, with their faults.

    The first non-empty line; the most frequent A-F in round brackets, where an Arabic letter with one
    bracket adds one (sin and kaf for C, jim never); else the most frequent capital A-F anywhere, in
    words too; else `Yes.` and `No.`. Of letters equally frequent the one that came first counts. A letter
    beyond the options is None: there it is wrong, here it is not right either.
    """
    line = next((line for line in raw.split("\n") if line), raw)
    counts = Counter(match.upper() for match in re.findall(r"[（(]([A-Fa-f])[）)]", line))
    for letter, form in _PAPER_ARABIC:
        if re.search(f"{form}[）)]|[（(]{form}", line):
            counts[letter] += 1
    if not counts:
        counts = Counter(re.findall("[A-F]", line)) or Counter({"Yes.": "A", "No.": "B"}.get(line, ""))
    if not counts:
        return None
    place = "ABCDEF".index(counts.most_common(1)[0][0])
    return (place,) if place < len(options) else None
