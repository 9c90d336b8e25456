"""What points at a person reaches no file, log or message, whatever becomes of its document."""

import json
import runpy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyclinic.cli import main
from polyclinic.corpus.build import build, read_documents
from polyclinic.corpus.privacy import personal
from polyclinic.corpus.privacy.privacy import privacy, question
from polyclinic.corpus.step import contents
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.corpus_section import PRIVATE, CorpusSection, PrivacySection
from polyclinic.errors import DataError
from polyclinic.progress import Silent
from polyclinic.records import Question

Write = Callable[..., Path]
Section = Callable[..., CorpusSection]
BENCH = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "privacy.py"))

# One of each class, in a sentence, and the part of it that must be seen nowhere.
CANARIES = {
    "BANK_ACCOUNT": ("Bank account 4471220938.", "4471220938"),
    "BIRTH_DATE": ("Date of birth: 17 March 1961.", "17 March 1961"),
    "CARD": ("Credit card 4556 7375 8689 9855.", "4556 7375 8689 9855"),
    "CARE_DATE": ("Admitted on 29.11.2019.", "29.11.2019"),
    "DEVICE": ("Serial number KX7741902.", "KX7741902"),
    "DRIVING_LICENCE": ("Driving licence B7264419.", "B7264419"),
    "EMAIL": ("Write to zora.quill@example.org today.", "zora.quill"),
    "HANDLE": ("Telegram: zora_quill77.", "zora_quill77"),
    "HEALTH_ID": ("Insurance number 8830021745.", "8830021745"),
    "IP": ("Seen from 203.0.113.77 at night.", "203.0.113.77"),
    "NATIONAL_ID": ("Her identity number is 918273645.", "918273645"),
    "PASSPORT": ("Passport: XK4419027.", "XK4419027"),
    "PHONE": ("Phone 0711 558 2031.", "0711 558 2031"),
    "PRACTITIONER": ("Licence number 55120-9.", "55120"),
    "PROFILE_URL": ("See https://www.facebook.com/zoraquill for more.", "zoraquill"),
    "RECORD": ("MRN 66190442.", "66190442"),
    "SOCIAL_SECURITY": ("SSN 219-44-1077.", "219-44-1077"),
    "SPECIMEN": ("Specimen number K22-71904.", "71904"),
    "TAX_ID": ("Tax id 77104488.", "77104488"),
    "VEHICLE": ("Number plate KBZ 904Q.", "KBZ 904Q"),
}
WORDS = "The nurse came early and washed her hands before the round on the ward of the children. "


def batch_of(*texts: str, **columns: list[str]) -> pa.RecordBatch:
    empty = dict.fromkeys(DOCUMENTS.names, "")
    rows = [
        {**empty, "id": f"d{n}", "language": "en", "turns": [{"role": "text", "content": t}]}
        for n, t in enumerate(texts)
    ]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return pa.RecordBatch.from_pylist(rows, schema=DOCUMENTS)


def everything(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file below a folder as text, invisible spaces gone; Parquet also as what its columns hold."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield path, path.name + path.read_bytes().decode("utf-8", "replace").replace("\u200b", "")
        if path.suffix == ".parquet":
            yield (
                path,
                json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False, default=str).replace("\u200b", ""),
            )


def leaks(folder: Path) -> list[str]:
    seen = everything(folder)
    return [f"{kind} in {path}" for path, text in seen for kind, (_, part) in CANARIES.items() if part in text]


def test_there_is_a_canary_of_each_of_the_twenty_classes() -> None:
    assert sorted(CANARIES) == sorted(PRIVATE) == personal.classes()
    assert len(PRIVATE) == 20


@pytest.mark.parametrize("kind", CANARIES)
def test_a_find_becomes_its_class_in_brackets_and_is_counted(kind: str) -> None:
    sentence, part = CANARIES[kind]
    result = privacy(batch_of(WORDS, WORDS + sentence), PrivacySection(), "a.jsonl")
    assert contents(result.batch)[0] == WORDS
    assert part not in contents(result.batch)[1]
    assert f"[{kind}]" in contents(result.batch)[1]
    assert result.counts == {f"private: {kind}": 1, "changed: privacy": 1}


def test_turns_are_redacted_where_they_are_and_roles_stay() -> None:
    turns = [{"role": "user", "content": WORDS}, {"role": "assistant", "content": CANARIES["RECORD"][0]}]
    rows = batch_of("a", "b").to_pylist()
    rows[1]["turns"] = turns
    found = privacy(pa.RecordBatch.from_pylist(rows, schema=DOCUMENTS), PrivacySection(), "a").batch.to_pylist()
    assert [turn["role"] for turn in found[1]["turns"]] == ["user", "assistant"]
    assert [turn["content"] for turn in found[1]["turns"]] == [WORDS, "MRN [RECORD]."]


def test_a_part_of_a_batch_is_searched_like_a_whole_one() -> None:
    texts = ["one", CANARIES["PHONE"][0], "three", CANARIES["EMAIL"][0]]
    part = privacy(batch_of(*texts).slice(1, 3), PrivacySection(), "a").batch
    assert contents(part) == ["Phone [PHONE].", "three", "Write to [EMAIL] today."]


def test_drop_and_refuse_and_off_and_chosen_classes() -> None:
    batch = batch_of("clean", CANARIES["PHONE"][0], CANARIES["EMAIL"][0])
    dropped = privacy(batch, PrivacySection(mode="drop"), "a.jsonl")
    assert contents(dropped.batch) == ["clean"]
    assert dropped.counts == {"dropped: privacy: PHONE": 1, "dropped: privacy: EMAIL": 1}
    with pytest.raises(DataError) as caught:
        privacy(batch, PrivacySection(mode="refuse"), "a.jsonl")
    assert "a.jsonl, record d1: holds PHONE" in str(caught.value)
    assert CANARIES["PHONE"][1] not in str(caught.value)
    assert privacy(batch, PrivacySection(mode="off"), "a").batch.equals(batch)
    only = privacy(batch, PrivacySection(classes=["EMAIL"]), "a").batch
    assert contents(only)[1:] == [CANARIES["PHONE"][0], "Write to [EMAIL] today."]


def test_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="NAME"):
        PrivacySection(classes=["NAME"])


def test_ids_and_groups_become_digests_that_stay_apart_and_other_fields_are_redacted() -> None:
    mails = ["zora@example.org", "quill@example.org"]
    batch = batch_of("a", "b", id=mails, group=[mails[0]] * 2, url=["https://t.me/zoraquill", "https://who.int"])
    found = privacy(batch, PrivacySection(), "a").batch.to_pylist()
    ids = [row["id"] for row in found]
    assert len(set(ids)) == 2
    assert found[0]["group"] == found[1]["group"] == ids[0]
    assert all(name.startswith("email-") and "@" not in name for name in ids)
    assert [row["url"] for row in found] == ["[PROFILE_URL]", "https://who.int"]


@pytest.mark.parametrize("kind", CANARIES)
def test_an_id_with_a_canary_is_not_kept(kind: str) -> None:
    found = privacy(batch_of(WORDS, id=[f"note-{CANARIES[kind][0]}"]), PrivacySection(), "a").batch
    assert CANARIES[kind][1] not in found.column("id")[0].as_py()


def test_a_question_is_redacted_dropped_or_refused_like_a_document() -> None:
    item = Question("q1", "en", "exam", "CC0", "q1", "test", WORDS + CANARIES["RECORD"][0], ("yes", "no"), (0,))
    counts: Counter[str] = Counter()
    (found,) = question(item, PrivacySection(), "q.jsonl", counts)
    assert found.question == WORDS + "MRN [RECORD]."
    assert counts == {"questions, private: RECORD": 1}
    assert question(item, PrivacySection(mode="drop"), "q.jsonl", counts) == []
    with pytest.raises(DataError, match=r"q\.jsonl, question q1: holds RECORD"):
        question(item, PrivacySection(mode="refuse"), "q.jsonl", counts)


def records() -> list[dict[str, Any]]:
    """Return canaries in texts, ids, groups and sources, and in documents that go for every reason."""
    out = []
    for n, (sentence, _) in enumerate(CANARIES.values()):
        near = f"{WORDS * 2}{sentence} {WORDS}"
        out += [
            {"id": f"kept-{n}", "language": "en", "text": near + str(n)},
            {"id": f"named {sentence}", "language": "en", "text": f"{WORDS}{n}", "parallel_id": sentence},
            {"id": f"twin-{n}", "language": "en", "text": near + str(n)},  # a duplicate
            {"id": f"other-{n}", "language": "de", "text": near},  # not in the recipe
            {"id": f"broken-{n}", "language": "de", "text": sentence.replace("1", "\u200b1").replace("a", "a\u200b")},
            {"id": f"wrong-{n}", "language": "fr", "text": f"{WORDS * 4}{sentence}"},  # another language
            {"id": f"source-{n}", "language": "en", "text": f"{WORDS}s{n}", "source": f"ward {sentence}"},
        ]
    return [{"id": "plain", "language": "en", "text": WORDS}, *out, {"id": "void", "language": "en", "text": "\u200b"}]


@pytest.mark.parametrize("mode", ["redact", "drop"])
def test_no_canary_is_in_any_file_of_a_build(mode: str, tmp_path: Path, section: Section, write_records: Write) -> None:
    write_records(tmp_path / "in/a.jsonl", records())
    exam = {"id": "q", "language": "en", "options": ["yes", "no"], "answer": "A"}
    write_records(
        tmp_path / "in/q.jsonl", [{**exam, "id": f"q {s}", "question": s, "context": s} for s, _ in CANARIES.values()]
    )
    source = {"path": "a.jsonl", "max_per_language": 20}
    settings = {"languages": ["en", "fr"], "check_language": "drop", "privacy": {"mode": mode}}
    made = section(source, exams=[{"path": "q.jsonl"}], **settings)
    (tmp_path / "out").mkdir()
    facts = build(made, tmp_path / "out", Silent())
    reasons = {reason.split(":")[1].strip() for reason in facts["counts"] if reason.startswith("dropped")}
    expected = {"empty", "exact duplicate", "language not in the recipe", "fr looks like en", "exam item"}
    expected |= {"over max_per_language"}
    assert reasons >= (expected if mode == "redact" else {"empty", "language not in the recipe", "privacy"})
    assert list(read_documents(tmp_path / "out"))
    assert leaks(tmp_path / "in"), "the search itself finds canaries where they are"
    assert leaks(tmp_path / "out") == []


RECIPE = """
name: small
corpus:
  root: {root}
  languages: [en]
  check_language: report
  privacy: {{mode: {mode}}}
  texts: [{{path: a.jsonl}}]
base: {{checkpoint: none}}
train: {{steps: 1}}
"""


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("refuse", '{{"id": "{s}", "language": "en", "text": "{s}"}}'),
        ("redact", '{{"id": "{s}", "language": "en", "text": "{s}"'),  # cut short
        ("redact", '{{"id": "{s}", "language": "{s}", "text": "{s}"}}'),
        ("redact", '{{"id": "{s}", "language": "en", "body": "{s}"}}'),
        ("redact", '{{"id": "{s}", "language": "en", "messages": [{{"role": "{s}", "content": "{s}"}}]}}'),
    ],
)
def test_no_canary_is_in_what_a_failing_build_says_or_leaves(
    mode: str, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    sentence = " ".join(s for s, _ in CANARIES.values())
    (tmp_path / "in/a.jsonl").write_text(line.format(s=sentence) + "\n", "utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=tmp_path / "in", mode=mode), "utf-8")
    assert main(["corpus", "build", str(recipe), "--out", str(tmp_path / "out")]) == 3
    said = "".join(capfd.readouterr())
    assert "a.jsonl" in said
    assert [kind for kind, (_, part) in CANARIES.items() if part in said] == []
    assert leaks(tmp_path / "out") == []


@pytest.mark.parametrize("part", BENCH["PARTS"])
def test_of_the_synthetic_set_nearly_all_is_hidden_and_little_else(part: str) -> None:
    found = BENCH["score"](BENCH["make"](part, 7, 2))
    there, hidden, named, spans, false = (sum(counter.values()) for counter in found[:5])
    assert there == 2 * 20 * 16
    assert hidden >= 0.99 * there
    assert named >= 0.98 * there
    assert false <= 0.05 * spans
