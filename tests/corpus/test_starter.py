"""The starter corpus: fifty languages that say the same, in their own script, with the same doses and times."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import regex

from polyclinic.corpus import starter
from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.pack.pack import Packing, load_tokenizer, pack
from polyclinic.corpus.pack.shards import Shards
from polyclinic.corpus_section import CorpusSection
from polyclinic.families import fifty
from polyclinic.languages import language
from polyclinic.progress import Silent

ALL = sorted(fifty())
# Scripts of ISO 15924 that are several of Unicode's; the long-vowel mark belongs to both kana.
COMPOSITE = {"Hans": ["Hani"], "Jpan": ["Hani", "Hira", "Kana"], "Kore": ["Hang", "Hani"]}
SPACED = {"Latn", "Cyrl"}  # here a unit begins a word; elsewhere a particle may stand before it
MAX_GAP = 30  # characters between a number and its unit


class Span(NamedTuple):
    """Where a unit stands in a text."""

    start: int
    end: int
    unit: str


def texts(code: str) -> Iterator[tuple[str, str]]:
    """Yield every text of a language under a name that all languages share."""
    entry = starter.entries()[code]
    yield "notice", entry["notice"]
    for topic, text in entry["topics"].items():
        yield f"{topic}.question", text["question"]
        for i, sentence in enumerate(text["answer"]):
            yield f"{topic}.answer[{i}]", sentence


def quantities(text: str, units: Mapping[str, Sequence[str]], script: str) -> list[tuple[int, str]]:
    """Return every number of a text with the unit that stands nearest to it, sorted; a unit behind wins a tie."""
    spans = unit_spans(text, units, script)
    return sorted((int(m.group()), nearest(m.start(), m.end(), spans)) for m in regex.finditer(r"\d+", text))


def unit_spans(text: str, units: Mapping[str, Sequence[str]], script: str) -> list[Span]:
    """Find every unit in every form; one inside a longer one is left out."""
    found = []
    for unit, forms in units.items():
        for form in forms:
            begins = r"(?<![\p{L}\p{M}])" if script in SPACED and form[0].isalpha() else ""
            matches = regex.finditer(begins + regex.escape(form), text, regex.IGNORECASE)
            found += [Span(m.start(), m.end(), unit) for m in matches]
    return [a for a in found if not any(b.start <= a.start and a.end <= b.end and a[:2] != b[:2] for b in found)]


def nearest(start: int, end: int, spans: Sequence[Span]) -> str:
    """Return the unit nearest to a number, or `none`."""
    gaps = [(s.start - end, 0, s.unit) if s.start >= end else (start - s.end, 1, s.unit) for s in spans]
    gap, _, unit = min(gaps, default=(MAX_GAP + 1, 0, "none"))
    return unit if gap <= MAX_GAP else "none"


def test_all_fifty_languages_are_present() -> None:
    assert sorted(starter.entries()) == ALL
    assert len(ALL) == 50
    assert all(entry["language"] == code for code, entry in starter.entries().items())


@pytest.mark.parametrize("code", ALL)
def test_a_language_has_eight_topics_of_a_question_and_three_sentences(code: str) -> None:
    topics = starter.entries()[code]["topics"]
    assert list(topics) == list(starter.entries()["en"]["topics"])
    assert len(topics) == 8
    assert all(set(text) == {"question", "answer"} and len(text["answer"]) == 3 for text in topics.values())
    assert all(text and text == " ".join(text.split()) for _, text in texts(code))


@pytest.mark.parametrize("code", ALL)
def test_every_text_is_in_the_script_of_its_language(code: str) -> None:
    script = language(code).script
    own = "".join(rf"\p{{sc={name}}}" for name in COMPOSITE.get(script, [script])) + ("ー" if script == "Jpan" else "")
    for name, text in texts(code):
        letters = regex.findall(r"\p{L}", text.replace("ml", "").replace("°C", ""))
        inside = [letter for letter in letters if regex.match(f"[{own}]", letter)]
        assert len(inside) >= 0.95 * len(letters) > 0, name


def test_no_two_texts_are_equal_in_any_two_languages() -> None:
    places = defaultdict(list)
    for code in ALL:
        for name, text in texts(code):
            if name != "notice":
                places[text.casefold()].append(f"{code} {name}")
    assert [found for found in places.values() if len(found) > 1] == []


@pytest.mark.parametrize("code", ALL)
def test_numbers_and_their_units_are_those_of_the_english_text(code: str) -> None:
    english, other = (starter.entries()[c]["units"] for c in ("en", code))
    assert set(other) == set(english)
    model = dict(texts("en"))
    for name, text in texts(code):
        expected = quantities(model[name], english, "Latn")
        assert quantities(text, other, language(code).script) == expected, name


def test_every_number_of_the_english_text_has_its_unit() -> None:
    """Read off the English text by hand: the comparison above says something only where units are found."""
    units = starter.entries()["en"]["units"]
    found = Counter(q for _, text in texts("en") for q in quantities(text, units, "Latn"))
    assert found == {
        (12, "teaspoon"): 1,
        (1, "teaspoon"): 1,
        (2, "litre"): 1,
        (100, "millilitre"): 1,
        (2, "year"): 1,
        (3, "month"): 1,
        (38, "celsius"): 2,
        (4, "hour"): 1,
        (8, "hour"): 1,
        (5, "day"): 1,
        (37, "week"): 1,
        (28, "week"): 1,
        (20, "minute"): 1,
        (1, "minute"): 1,
        (30, "minute"): 1,
        (5, "year"): 1,
        (24, "hour"): 1,
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Give 5 ml every 3 hours", [(3, "hour"), (5, "ml")]),
        ("Give 3 ml every 5 hours", [(3, "ml"), (5, "hour")]),
        ("小さじ3、5時間", [(3, "spoon"), (5, "hour")]),
        ("for " + "x" * 40 + " 7", [(7, "none")]),
        ("15 minutes", [(15, "minute")]),
        ("٥ ساعات", [(5, "hour")]),
        ("3 shours", [(3, "none")]),
    ],
)
def test_a_number_is_paired_with_the_nearest_unit(text: str, found: list[tuple[int, str]]) -> None:
    units = {"hour": ["hour", "時間", "ساعات"], "ml": ["ml"], "spoon": ["小さじ"], "minute": ["minute"], "min": ["min"]}
    script = "Latn" if text.isascii() else "Jpan"
    assert quantities(text, units, script) == found


@pytest.mark.parametrize("code", [code for code in ALL if code != "en"])
def test_the_notice_is_in_the_language_itself(code: str) -> None:
    notice, english = (starter.entries()[c]["notice"] for c in (code, "en"))
    assert notice.strip()
    assert notice.casefold() != english.casefold()


def test_a_document_is_a_topic_with_its_translations_in_one_group() -> None:
    documents = list(starter.documents())
    assert len(documents) == len({d.id for d in documents}) == 8 * 50
    groups = Counter(d.group for d in documents)
    assert set(groups.values()) == {50}
    entry = starter.entries()["sw"]["topics"]["burns"]
    (document,) = (d for d in documents if d.id.endswith(":burns:sw"))
    assert [t.role for t in document.turns] == ["user", "assistant"]
    assert document.text() == "\n".join([entry["question"], " ".join(entry["answer"])])


def test_two_topics_are_held_out_in_every_language() -> None:
    splits = defaultdict(set)
    for d in starter.documents():
        splits[d.group.split(":")[1]].add(d.split)
    held_out = {topic for topic, found in splits.items() if found == {"held_out"}}
    assert len(held_out) == 2
    assert all(found == {"train"} for topic, found in splits.items() if topic not in held_out)
    tested = {q.group.split(":")[1] for q in starter.questions() if q.split == "test"}
    assert tested == held_out


def sentences(code: str) -> dict[str, tuple[str, int]]:
    """Return topic and number of every answer sentence of a language."""
    topics: dict[str, Any] = starter.entries()[code]["topics"]
    return {text: (topic, i) for topic, entry in topics.items() for i, text in enumerate(entry["answer"])}


def test_the_right_option_alone_belongs_to_the_topic_and_all_are_of_one_split() -> None:
    held_out = {d.group.split(":")[1] for d in starter.documents() if d.split == "held_out"}
    for q in starter.questions():
        places = [sentences(q.language)[option] for option in q.options]
        topic, index = q.group.split(":")[1:]
        assert len(set(places)) == 4
        assert q.question == starter.entries()[q.language]["topics"][topic]["question"]
        assert [i for i, place in enumerate(places) if place[0] == topic] == list(q.answers)
        assert places[q.answers[0]] == (topic, int(index))
        assert {place[0] in held_out for place in places} == {q.split == "test"}


def test_questions_are_the_same_items_in_the_same_order_in_every_language() -> None:
    items = defaultdict(list)
    for q in starter.questions():
        places = tuple(sentences(q.language)[option] for option in q.options)
        items[q.language].append((q.group, q.split, q.answers, places))
    assert len(items) == 50
    assert len(items["en"]) == 24
    assert all(found == items["en"] for found in items.values())


def test_every_place_is_right_about_equally_often() -> None:
    for split, number in (("seen", 18), ("test", 6)):
        places = Counter(q.answers[0] for q in starter.questions() if q.split == split and q.language == "en")
        assert places.total() == number
        assert max(places.values()) - min(places[i] for i in range(4)) <= 1


def test_nothing_of_the_held_out_topics_is_in_the_packs(byte_tokenizer: Path, tmp_path: Path) -> None:
    corpus, packs = tmp_path / "corpus", tmp_path / "packs"
    corpus.mkdir()
    packs.mkdir()
    section = CorpusSection.model_validate({"texts": [{"starter": True}], "exams": [{"starter": True}]})
    build(section, corpus, Silent())
    training = [d for d in read_documents(corpus) if d.split == "train"]
    pack(training, *load_tokenizer(byte_tokenizer), lambda code: 0, packs, Packing(4096, "all", 0), Silent())
    ids = [token for row in Shards(packs) for token in row["input_ids"].tolist() if token < 256]
    packed = bytes(ids).decode()
    for d in starter.documents():
        question, answer = (turn.content for turn in d.turns)
        assert (question in packed) == (answer in packed) == (d.split == "train")
        assert d.split == "train" or not any(s in packed for s, (t, _) in sentences(d.language).items() if t in d.id)


def test_the_version_depends_on_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    before = starter.version()
    entries = {**starter.entries(), "en": {**starter.entries()["en"], "notice": "changed"}}
    monkeypatch.setattr(starter, "entries", lambda: entries)
    assert starter.version() != before
