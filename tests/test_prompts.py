"""One way for text to look: training and the chat template agree in every script."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from polyclinic.corpus import starter
from polyclinic.families import fifty
from polyclinic.prompts import CHAT_TEMPLATE, plain_text, segments, stretches
from polyclinic.records import Document, Turn

END = "<|endoftext|>"
WILD = [
    "{{ 7 }}",
    "{% raw %}",
    "{# no #}",
    "'",
    '"',
    "\\",
    "\\n",
    "<b>&amp;",
    "User: ",
    "\nAssistant:",
    "\u200c",
    "ي5 mg",
    "漢",
    " ",
    "  two\n\n",
    "\u200fد\u202b",
    "e\u0301\u0302",
    "👩🏽‍⚕️",
]
contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(WILD)
dialogues = st.lists(st.builds(Turn, st.sampled_from(["user", "assistant"]), contents), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    empty = Tokenizer(models.WordLevel({END: 0}, unk_token=END))
    stock = PreTrainedTokenizerFast(tokenizer_object=empty, eos_token=END)
    stock.chat_template = CHAT_TEMPLATE
    return stock


def rendered(tokenizer: PreTrainedTokenizerFast, turns: list[Turn], ask: bool = False) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))


def trained(turns: list[Turn]) -> str:
    """Return what a model is trained on, end tokens written out."""
    return "".join(piece.text + END * piece.ends for piece in segments(turns))


@settings(deadline=None, max_examples=50)
@given(turns=dialogues)
def test_the_chat_template_writes_what_training_saw(turns: list[Turn], tokenizer: PreTrainedTokenizerFast) -> None:
    assert rendered(tokenizer, turns) == trained(turns)


@pytest.mark.parametrize("code", sorted(fifty()))
def test_the_chat_template_writes_what_training_saw_in_each_language(
    code: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    for document in starter.documents():
        if document.language == code:
            assert rendered(tokenizer, list(document.turns)) == trained(list(document.turns))


@settings(deadline=None, max_examples=50)
@given(turns=dialogues, answer=contents)
def test_the_generation_prompt_is_where_training_puts_the_answer(
    turns: list[Turn], answer: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    turns = [*turns, Turn("user", "?")]
    whole = trained([*turns, Turn("assistant", answer)])
    assert whole == rendered(tokenizer, turns, ask=True) + f" {answer}{END}"


@pytest.mark.parametrize("role", ["system", "tool", "text", "User", ""])
def test_a_message_of_a_role_that_was_not_trained_is_refused_not_dropped(
    role: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": role, "content": "b"}]
    for order in (messages, messages[::-1]):
        with pytest.raises(TemplateError, match=f"no role {role} in this model, only user and assistant"):
            tokenizer.apply_chat_template(order, tokenize=False)


def test_a_dialogue_is_cut_where_loss_begins_and_ends() -> None:
    pieces = segments([Turn("user", "Why?"), Turn("assistant", "So.")])
    assert [(p.text, p.answer, p.ends) for p in pieces] == [
        ("User: Why?", False, False),
        ("\nAssistant:", False, False),
        (" So.", True, True),
    ]
    assert [tuple(p) for p in segments([Turn("text", "Plain.")])] == [("Plain.", True, True)]


def test_asking_adds_the_head_of_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [Turn("user", "Why?"), Turn("assistant", "So."), Turn("user", "And?")]
    text = "".join(piece.text + END * piece.ends for piece in segments(turns, ask=True))
    assert text == rendered(tokenizer, turns, ask=True)


def test_a_stretch_ends_where_a_turn_ends() -> None:
    turns = [Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c"), Turn("user", "d")]
    assert ["".join(piece.text for piece in held) for held in stretches(segments(turns))] == [
        "User: a\nUser: b\nAssistant: c",
        "\nUser: d",
    ]


def test_a_document_as_plain_text_is_its_template_without_end_tokens() -> None:
    turns = (Turn("user", "Why?"), Turn("assistant", "So."), Turn("user", "And?"))
    assert plain_text(Document("1", "en", "s", "l", "g", turns)) == "User: Why?\nAssistant: So.\nUser: And?"
