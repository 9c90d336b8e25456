"""Requests of all kinds, and what lm-eval's own class says to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from polyclinic.evaluate.backends.local import load_tokenizer
from polyclinic.evaluate.prompting import document
from polyclinic.evaluate.protocol import PROTOCOLS
from polyclinic.moe.checkpoint import load_model
from polyclinic.records import Question

PLACES = 64  # of the model; the shared one has room for hundreds


def prompt_of(question: Question) -> str:
    made = document(question, (), PROTOCOLS["option"])
    assert made is not None
    return str(made["prompt"])


def stock(checkpoint: Path, **settings: Any) -> HFLM:
    values = {"device": "cpu", "batch_size": 5, **settings}
    return HFLM(load_model(checkpoint).eval(), tokenizer=load_tokenizer(checkpoint), **values)


def choices(questions: Sequence[Question]) -> list[Instance]:
    """Options in full, and letters; contexts with a blank at the end; no context at all; several tokens in common."""
    out = []
    for question in questions:
        doc = {"id": question.id, "language": question.language}
        prompt = prompt_of(question)
        letters = [f" {'ABCDEF'[i]}" for i in range(len(question.options))]
        several = [f" {', '.join('ABCDEF'[: i + 1])}\n" for i in range(len(question.options))]
        asked = [(prompt, f" {option}") for option in question.options]
        asked += [(prompt, letter) for letter in letters] + [(prompt, sets) for sets in several]
        asked += [(prompt + " ", option) for option in question.options[:2]]
        asked += [("", option) for option in question.options[:2]]
        out += [Instance("loglikelihood", doc, pair, i) for i, pair in enumerate(asked)]
    return out


def written(questions: Sequence[Question], **settings: Any) -> list[Instance]:
    values = {"until": ["\n\n"], "max_gen_toks": 12, **settings}
    return [
        Instance("generate_until", {"id": q.id, "language": q.language}, (prompt_of(q), dict(values)), 0)
        for q in questions
    ]


def apart(one: Sequence[tuple[float, bool]], other: Sequence[tuple[float, bool]]) -> float:
    """Return the largest difference of scores; greediness must be the same."""
    assert [greedy for _, greedy in one] == [greedy for _, greedy in other]
    return float(np.abs(np.subtract([nats for nats, _ in one], [nats for nats, _ in other])).max())


def obvious(checkpoint: Path, questions: Sequence[Question]) -> list[Instance]:
    """Return what greedy decoding would write after questions, as choices."""
    model, tokenizer, out = load_model(checkpoint).eval(), load_tokenizer(checkpoint), []
    for question in questions:
        prompt = prompt_of(question)
        tokens = model.generate(tokenizer(prompt, return_tensors="pt").input_ids, max_new_tokens=3, do_sample=False)[0]
        text = tokenizer.decode(tokens[-3:])
        if tokenizer(prompt + text).input_ids == tokens.tolist():
            out.append(Instance("loglikelihood", {"language": question.language}, (prompt, text), 0))
    return out
