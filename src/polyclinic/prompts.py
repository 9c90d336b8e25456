"""How text looks to a model: the conversations of training.

The template is the paper's (`User:` ... `Assistant:` ...), the same in every language;
`CHAT_TEMPLATE` is its Jinja twin and travels with the checkpoint.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from polyclinic.records import Document, Turn

PREFIX = {"text": "", "user": "User:", "assistant": "Assistant:"}

# No call of it may drop a message without a word: a role that was not trained is refused.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if not loop.first %}{{ '\\n' }}{% endif -%}"
    "{%- if message['role'] == 'user' -%}{{ 'User: ' + message['content'] }}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{%- else -%}"
    "{{ raise_exception('no role ' + message['role'] + ' in this model, only user and assistant: "
    "put the text into the first user message') }}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '\\nAssistant:' }}{%- endif -%}"
)


class Segment(NamedTuple):
    """A stretch of prompt text; `answer` marks what the model is to say, `ends` a turn's end token."""

    text: str
    answer: bool
    ends: bool


def segments(turns: Sequence[Turn], ask: bool = False) -> list[Segment]:
    """Cut a document where loss begins and turns end; `ask` adds the head of the answer that is wanted."""
    out: list[Segment] = []
    for i, turn in enumerate(turns):
        head = ("\n" if i else "") + PREFIX[turn.role]
        if turn.role == "assistant":
            out += [Segment(head, False, False), Segment(f" {turn.content}", True, True)]
        elif turn.role == "user":
            out.append(Segment(f"{head} {turn.content}", False, False))
        else:
            out.append(Segment(head + turn.content, True, True))
    if ask:
        out.append(Segment(f"\n{PREFIX['assistant']}", False, False))
    return out


def stretches(pieces: Iterable[Segment]) -> Iterator[list[Segment]]:
    """Join segments up to each end token: what lies between two of them is tokenised as one string."""
    held: list[Segment] = []
    for piece in pieces:
        held.append(piece)
        if piece.ends:
            yield held
            held = []
    if held:
        yield held


def plain_text(document: Document) -> str:
    """Return a document as a model sees it, without end tokens."""
    return "".join(segment.text for segment in segments(document.turns))
