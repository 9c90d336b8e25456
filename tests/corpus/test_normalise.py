"""Normalisation: one form for equal texts, nothing invisible that turns them around, nothing else lost."""

import unicodedata

import pyarrow as pa
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers

from polyclinic.corpus import starter
from polyclinic.corpus.normalise import clean, normalise, plain
from polyclinic.corpus.tables import DOCUMENTS
from polyclinic.records import Document, Turn

ODD = [
    " ",
    "\n",
    "\r",
    "\t",
    "\u00a0",
    "\u200b",
    "\u200c",
    "\u200d",
    "\u200f",
    "\u202e",
    "\u2028",
    "e",
    "\u0301",
    "\ufeff",
]
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(ODD), max_size=30)


@settings(deadline=None, max_examples=50)
@given(texts)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@settings(deadline=None, max_examples=50)
@given(texts)
def test_clean_text_is_composed_and_free_of_control_and_direction_marks(text: str) -> None:
    cleaned = clean(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not regex.search(r"[\p{Bidi_Control}\p{Cc}--\n]", cleaned, regex.V1)
    assert not regex.search(r"[^\S\n ]|  | \n|\n | ?\n\n|^\s|\s$", cleaned)


def test_every_direction_mark_of_unicode_goes() -> None:
    marks = regex.findall(r"\p{Bidi_Control}", "".join(map(chr, range(0x110000))))
    assert len(marks) == 12  # https://www.unicode.org/Public/UCD/latest/ucd/PropList.txt
    assert clean("5" + "".join(marks) + " mg") == "5 mg"


@pytest.mark.parametrize("text", ["می\u200cخواهم", "क्\u200dष", "نەخۆش\u200cخانە"])
def test_joiners_stay(text: str) -> None:
    assert clean(text) == unicodedata.normalize("NFC", text)


def test_a_letter_and_its_accent_are_composed_across_a_mark_that_goes() -> None:
    assert clean("e\u200b\u0301") == "\u00e9"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", " \n\t\n "])
def test_no_kind_of_line_end_joins_two_words(end: str) -> None:
    assert clean(f"one{end}two") == "one\ntwo"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("aéßعपा漢ク𝒳9", min_size=1, max_size=5), min_size=1, max_size=5), st.data())
def test_only_the_kind_of_space_between_words_changes(words: list[str], data: st.DataObject) -> None:
    spaces = st.text("\u0020\u0009\u00a0\u3000\u2009", min_size=1, max_size=3)
    text = words[0] + "".join(data.draw(spaces) + word for word in words[1:])
    assert clean(text) == unicodedata.normalize("NFC", " ".join(words))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("ล้าง\u200bมือ\u200bบ่อยๆ", "ล้างมือบ่อยๆ"),
        ("ລ້າງ\u200bມື", "ລ້າງມື"),
        ("手を\u200b洗う", "手を洗う"),
        ("\u3000手を洗う。\u3000水を飲む。\u3000", "手を洗う。 水を飲む。"),
        ("洗手。喝水。", "洗手。喝水。"),
        ("Où\u00a0? 5\u202fmg", "Où ? 5 mg"),
        ("Gesund\u00adheit", "Gesundheit"),
        ("\x84Da,\x94 \x93no\x94 5\x80", "„Da,” “no” 5€"),
        ("a\x81b", "ab"),
        ("ᠮᠣᠩᠭᠣᠯ\u180eᠠ", "ᠮᠣᠩᠭᠣᠯ\u180eᠠ"),
        ("❤\ufe0f", "❤\ufe0f"),
    ],
)
def test_spaces_are_those_a_reader_of_the_script_sees(text: str, cleaned: str) -> None:
    assert clean(text) == unicodedata.normalize("NFC", cleaned)


@settings(deadline=None, max_examples=200)
@given(texts)
def test_a_text_that_seems_even_is_one(text: str) -> None:
    """The quick answer must be the one that the whole way gives."""
    quick = clean(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyclinic.corpus.normalise._is_even", lambda text: False)
        assert clean(text) == quick


# One of each kind from the templates and vocabularies of models that people tune.
TOKENS = [
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>"),
    *("<|reserved_special_token_17|>", "<|fim_prefix|>", "<|system|>", "<|user|>", "<|end|>", "<|channel|>"),
    *("<|START_OF_TURN_TOKEN|>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<s>", "</s>", "<unk>", "<pad>", "<0x0A>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[IMG]", "[control_42]"),
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<unused7>", "<think>", "</think>", "<tool_call>"),
    *("[CLS]", "[SEP]", "[MASK]", "[unused99]", "[gMASK]", "<sop>", "<extra_id_0>"),
]


@pytest.mark.parametrize("token", TOKENS)
def test_a_special_token_in_a_text_becomes_text_that_reads_on(token: str) -> None:
    made = plain(f"Say {token}{token}now")
    assert token not in made
    assert made.replace(" ", "") == f"Say{token}{token}now"
    assert plain(made) == made == clean(made)


def test_no_tokenizer_takes_the_plain_form_for_a_token() -> None:
    """A vocabulary in which every name is a special token, matched in any case and beside any space."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106
    added = [AddedToken(t, lstrip=True, rstrip=True, normalized=True, special=True) for t in TOKENS]
    tokenizer.add_special_tokens(added)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    special = {tokenizer.token_to_id(token) for token in TOKENS}
    before, after = (set(tokenizer.encode(text).ids) for text in (" ".join(TOKENS), plain(" ".join(TOKENS))))
    assert len(before & special) > len(TOKENS) / 2
    assert not after & special


@pytest.mark.parametrize("text", ["a < b and c > d", "<p>", "[1]", "5 <|> 6", "[inst]", "<| a |>", "x[0]"])
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert plain(text) == text


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([*TOKENS, "<", "|", ">", "[", "]", "s", "/", " ", "\u200b", "_"]), max_size=12))
def test_no_name_is_left_however_names_are_put_together(pieces: list[str]) -> None:
    made = plain(clean("".join(pieces)))
    assert not [token for token in TOKENS if token in made]
    assert plain(clean(made)) == made


def test_a_name_with_something_invisible_inside_is_found() -> None:
    assert plain(clean("<|im\u200b_start|>")) == "< |im_start| >"


def test_the_starter_corpus_is_clean_already() -> None:
    changed = [d.id for d in starter.documents() if any(plain(clean(t.content)) != t.content for t in d.turns)]
    assert changed == []


def test_a_batch_counts_what_it_changed_and_what_it_dropped() -> None:
    contents = [("clean",), ("a  b", "c"), ("\u200b\u202e ",), ("kept", "\n")]
    documents = [
        Document(str(i), "en", "s", "l", str(i), tuple(Turn("user", c) for c in parts))
        for i, parts in enumerate(contents)
    ]
    step = normalise(pa.RecordBatch.from_pylist([d.row() for d in documents], schema=DOCUMENTS))
    kept = [Document.from_row(row) for row in step.batch.to_pylist()]
    assert [[t.content for t in d.turns] for d in kept] == [["clean"], ["a b", "c"]]
    assert step.counts == {"changed: normalised": 3, "dropped: empty": 2}
    assert step.batch.schema == DOCUMENTS
