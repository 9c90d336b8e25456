"""What is routed: folders read line by line, languages known, groups in the same bucket in every language."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyclinic.analyse.texts import BUCKETS, Folder, Smallest, Survey, fingerprint, place_of, survey
from polyclinic.errors import DataError, UnknownLanguageError
from polyclinic.records import Document, Turn


def text(code: str, group: str, words: int = 9) -> Document:
    return Document(f"{code}-{group}", code, "made", "CC0-1.0", group, (Turn("text", "word " * words),))


def words(document: Document) -> int:
    return len(document.text().split())


def look(documents: list[Document], cap: int | None = None, languages: tuple[str, ...] = ()) -> Survey:
    return survey(documents, words, 8, languages, cap)


def written(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, "utf-8")
    return folder


def test_language_and_group_come_from_the_record_or_else_from_the_file(tmp_path: Path) -> None:
    records = [
        {"text": "ماء", "parallel_id": "p1", "id": "a1"},
        {"text": "water", "language": "eng", "parallel_id": "p1"},
        {"text": "doctor", "language": "en-GB", "source": "s", "licence": "l"},
    ]
    lines = "\n".join(json.dumps(r) for r in records) + "\n\n"
    folder = Folder(written(tmp_path, ar__jsonl=lines, th__txt="น้ำ\n\n ยา \n", notes__md="no text"))
    found = [(d.language, d.group, d.text()) for d in folder]
    assert found == [
        ("ar", "p1", "ماء"),
        ("en", "p1", "water"),
        ("en", "ar.jsonl:3", "doctor"),
        ("th", "th.txt:1", "น้ำ"),
        ("th", "th.txt:3", "ยา"),
    ]
    assert [(d.language, d.group, d.text()) for d in folder] == found  # read anew
    assert [d.language for d in Folder(tmp_path, ["th"])] == ["th", "th"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "1: is no JSON;"),
        ("[1]", "1: is no JSON object"),
        ('{"id": "a"}', "1: has no text"),
        ('{"text": 3}', "1: has no text"),
        ("[" * 100_000, "1: is no JSON;"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(DataError, match=rf"en\.jsonl:{what}"):
        list(Folder(written(tmp_path, en__jsonl=line)))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        Folder(tmp_path / "absent")
    with pytest.raises(DataError, match=r"holds no \.jsonl or \.txt files"):
        Folder(written(tmp_path, readme__md="words"))
    with pytest.raises(UnknownLanguageError, match=r"notes\.txt:1: unknown language 'notes'"):
        list(Folder(written(tmp_path, notes__txt="words")))
    (tmp_path / "notes.txt").write_bytes(b"\xff\xfe\x00w")
    with pytest.raises(DataError, match=r"notes\.txt: is not UTF-8"):
        list(Folder(tmp_path))
    with pytest.raises(UnknownLanguageError, match="--languages"):
        Folder(tmp_path, ["xx"])


def test_up_to_64_texts_of_a_language_have_a_bucket_each_and_translations_the_same() -> None:
    """Half the texts are translated, half are of one language alone."""
    documents = [text(c, f"both{i}") for c in ("en", "fr", "th") for i in range(BUCKETS // 2)]
    documents += [text(c, f"{c}{i}") for c in ("en", "fr", "th") for i in range(BUCKETS // 2)]
    found = look(documents)
    for code in ("en", "fr", "th"):
        numbers = [found.bucket_number(d.group) for d in documents if d.language == code]
        assert sorted(numbers) == list(range(BUCKETS))
    assert found.parallel == BUCKETS // 2


@given(st.lists(st.tuples(st.sampled_from(["en", "fr"]), st.integers(0, 400)), min_size=200, max_size=600))
@settings(max_examples=20, deadline=None)
def test_more_texts_share_buckets_by_their_group_alone(pairs: list[tuple[str, int]]) -> None:
    documents = [text(c, str(g)) for c, g in [("en", 0), ("fr", 0), *pairs]]
    found, other = look(documents), look(documents[::-1])
    assert found.number_of == other.number_of
    assert {found.bucket_number(d.group) for d in documents} <= set(range(BUCKETS))
    assert len(found.number_of) <= 2 * BUCKETS
    assert found.documents == dict(Counter(d.language for d in documents))


def test_a_cap_takes_the_same_texts_in_every_language() -> None:
    documents = [text(c, f"g{i}") for c in ("en", "fr") for i in range(100)]
    found = look(documents, cap=10)
    taken = [{d.group for d in documents if d.language == c and found.takes(d)} for c in ("en", "fr")]
    assert taken[0] == taken[1] == set(sorted({d.group for d in documents}, key=place_of)[:10])
    assert (found.routed(), look(documents).routed()) == (20, 200)
    assert look(documents).takes(documents[0])
    assert not found.takes(text("th", "g1"))


def test_languages_with_too_little_text_are_left_out_and_said() -> None:
    documents = [text("en", "a"), text("fr", "a"), text("th", "a", words=4), text("th", "b", words=3)]
    found = look(documents)
    assert (found.languages, found.left_out) == (("en", "fr"), {"th": 7})
    with pytest.raises(DataError, match=r"--languages: 7 tokens of text in th.*ask for others, of: en, fr"):
        look(documents, languages=("en", "th"))
    with pytest.raises(DataError, match="--languages: 0 tokens of text in ru"):
        look(documents, languages=("ru",))


@pytest.mark.parametrize("documents", [[], [text("en", "a")], [text("en", "a"), text("fr", "a", words=7)]])
def test_fewer_than_two_languages_are_refused(documents: list[Document]) -> None:
    with pytest.raises(DataError, match="fewer than two languages that has at least 8 tokens"):
        look(documents)


def test_texts_that_are_not_parallel_are_known_as_such() -> None:
    assert look([text(c, f"{c}{i}") for c in ("en", "fr") for i in range(200)]).parallel == 0


@given(st.lists(st.integers(0, 50)), st.integers(1, 9))
def test_the_smallest_are_kept_whatever_the_order(numbers: list[int], k: int) -> None:
    kept = Smallest(k)
    for number in numbers:
        kept.add(number)
    assert kept.held == set(sorted(set(numbers))[:k])
    assert all(kept.reaches(n) == (n in kept.held) for n in numbers)


def test_the_digest_is_of_languages_and_words_of_what_is_routed_and_not_of_their_order() -> None:
    found = [text(code, group) for code in ("en", "fr") for group in "abc"]
    first = fingerprint(found, look(found))
    assert first["documents"] == 6
    assert fingerprint(found[::-1], look(found)) == first
    assert fingerprint(found, look(found, cap=2))["documents"] == 4
    for other in (text("en", "c", 10), text("ha", "c")):
        changed = [*found[:2], other, *found[3:]]
        assert fingerprint(changed, look([*changed, *found]))["digest"] != first["digest"]
