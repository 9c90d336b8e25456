"""Shared contexts change no score: lm-eval's own class, a plain recomputation, every way to lay a batch out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from asking import apart, choices, stock
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer

from polyclinic.errors import CheckpointError
from polyclinic.evaluate.backends import local
from polyclinic.evaluate.backends.local import LocalModel
from polyclinic.moe.checkpoint import load_model
from polyclinic.records import Question

NOISE = 1e-4  # nats of a choice in float32

Scores = list[tuple[float, bool]]


@pytest.mark.parametrize("name", ["base", "mixture"])
def test_scores_and_greediness_are_those_of_lm_evals_own_class(
    models: dict[str, Path], asked: list[Instance], said: dict[str, Scores], name: str
) -> None:
    heard: list[str] = []
    model = LocalModel(models[name], say=heard.append)
    assert apart(model.loglikelihood(asked), said[name]) < NOISE
    assert heard == []  # nothing fell back


@torch.no_grad()
def test_scores_are_those_of_one_plain_forward_a_choice(
    models: dict[str, Path], asked: list[Instance], said: dict[str, Scores]
) -> None:
    model, tokenizer = (
        load_model(models["mixture"]).eval(),
        Tokenizer.from_file(str(models["mixture"] / "tokenizer.json")),
    )
    ours = LocalModel(models["mixture"]).loglikelihood(asked)
    some = [i for i, request in enumerate(asked) if request.args[0].strip() == request.args[0] != ""]
    for i in some[::3]:
        context, choice = asked[i].args
        whole, begin = tokenizer.encode(context + choice).ids, len(tokenizer.encode(context).ids)
        logits = model(input_ids=torch.tensor([whole])).logits[0].double()
        nats = [torch.softmax(logits[place - 1], -1)[whole[place]].log().item() for place in range(begin, len(whole))]
        greedy = all(int(logits[place - 1].argmax()) == whole[place] for place in range(begin, len(whole)))
        assert ours[i] == (pytest.approx(sum(nats), abs=NOISE), greedy)


@pytest.mark.parametrize("tokens", [1, 200, 10_000])
def test_batches_of_any_size_give_the_same_scores(
    models: dict[str, Path], asked: list[Instance], said: dict[str, Scores], tokens: int
) -> None:
    assert apart(LocalModel(models["mixture"], batch_tokens=tokens).loglikelihood(asked), said["mixture"]) < NOISE


def test_questions_behind_the_same_examples_are_scored_as_if_alone(
    models: dict[str, Path], questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    shots = "Question: what heals?\nAnswer: water and rest, every day again\n\n" * 3
    requests = [
        Instance(r.request_type, r.doc, (shots + r.args[0], r.args[1]), r.idx)
        for r in choices(questions[:6])
        if r.args[0]
    ]
    model = LocalModel(models["mixture"])
    model._checked = True
    rows: list[int] = []
    forward = LocalModel._forward
    monkeypatch.setattr(
        LocalModel, "_forward", lambda self, batch: rows.extend(map(len_of, batch)) or forward(self, batch)
    )
    assert (
        apart(model.loglikelihood(requests), stock(models["mixture"]).loglikelihood(requests, disable_tqdm=True))
        < NOISE
    )
    assert len(rows) < 6  # questions stood together


def test_contexts_too_long_for_a_tree_are_scored_alike(
    models: dict[str, Path], asked: list[Instance], said: dict[str, Scores], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalModel(models["mixture"])
    lengths = sorted(len(model._tokens(*request.args)[0]) for request in asked)
    monkeypatch.setattr(local, "LONGEST", lengths[len(lengths) // 2])
    grown: list[int] = []
    lay_out = local.lay_out
    monkeypatch.setattr(local, "lay_out", lambda rows, dtype: grown.extend(map(trunk, rows)) or lay_out(rows, dtype))
    assert apart(model.loglikelihood(asked), said["mixture"]) < NOISE
    assert 0 < max(grown) <= lengths[len(lengths) // 2] < lengths[-1]


def trunk(tree: local.Tree) -> int:
    """Return the length of the shortest context in a tree."""
    return 1 + min(tree.depths[node] for node in tree.scored)


def len_of(tree: local.Tree) -> int:
    return len(tree.tokens)


@pytest.mark.parametrize("places", [12, 30])
def test_what_is_too_long_loses_its_beginning_as_in_lm_eval(
    models: dict[str, Path], questions: list[Question], places: int
) -> None:
    requests = [r for r in choices(questions[:6]) if len(r.args[1].encode()) < 20]
    ours, theirs = LocalModel(models["mixture"]), stock(models["mixture"], max_length=places)
    assert max(len(ours.tok_encode("".join(r.args))) for r in requests) > places + 1
    kept = [r for r in requests if len(ours._tokens(*r.args)[1]) <= places]
    ours._max_length = places
    assert apart(ours.loglikelihood(kept), theirs.loglikelihood(kept, disable_tqdm=True)) < NOISE


def test_a_choice_longer_than_the_model_is_one_line(models: dict[str, Path]) -> None:
    model = LocalModel(models["base"])
    model._max_length = 4
    with pytest.raises(CheckpointError, match="cannot be scored in 4 positions"):
        model.loglikelihood([Instance("loglikelihood", {}, ("a", " water" * 20), 0)])


def test_a_model_that_shared_contexts_disturb_is_scored_plainly_with_one_notice(
    models: dict[str, Path], asked: list[Instance], said: dict[str, Scores], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    model = LocalModel(models["mixture"], say=heard.append)
    lay_out = local.lay_out
    monkeypatch.setattr(
        local, "lay_out", lambda *given: lay_out(*given)._replace(mask_R1SS=0 * lay_out(*given).mask_R1SS)
    )
    assert apart(model.loglikelihood(asked), said["mixture"]) < NOISE
    assert apart(model.loglikelihood(asked[:40]), said["mixture"][:40]) < NOISE
    assert len(heard) == 1
    assert "shared contexts change its scores" in heard[0]


@pytest.mark.parametrize("change", [{"layer_types": ["sliding_attention"] * 3}, {"sliding_window": 8}])
def test_a_window_of_attention_is_never_given_a_tree(models: dict[str, Path], change: dict[str, object]) -> None:
    config = load_model(models["base"]).config
    assert not local.looks_back_only_so_far(config)
    for name, value in {"layer_types": None, "use_sliding_window": True, **change}.items():
        setattr(config, name, value)
    assert local.looks_back_only_so_far(config)


def test_a_model_whose_logits_cannot_be_picked_is_scored_alike(
    models: dict[str, Path], asked: list[Instance], said: dict[str, Scores]
) -> None:
    model = LocalModel(models["mixture"])
    model._keeps = False
    assert apart(model.loglikelihood(asked), said["mixture"]) < NOISE


def test_letters_read_each_context_once(
    models: dict[str, Path], questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalModel(models["base"])
    model._checked = True
    requests = [r for r in choices(questions[:8]) if r.args[1] in (" A", " B", " C", " D", " E", " F") and r.args[0]]
    seen: list[int] = []
    logits = LocalModel._logits
    monkeypatch.setattr(
        LocalModel, "_logits", lambda self, tokens, *more: seen.append(tokens.numel()) or logits(self, tokens, *more)
    )
    model.loglikelihood(requests)
    contexts = {r.args[0] for r in requests}
    longest = max(len(model.tok_encode(context)) for context in contexts)
    assert len(contexts) > 4
    assert sum(seen) == (longest + 1) * len(contexts)  # a letter is a blank and itself here


def test_whole_texts_are_scored_as_by_lm_eval(models: dict[str, Path], questions: list[Question]) -> None:
    requests = [Instance("loglikelihood_rolling", {}, (q.question,), 0) for q in questions[:5]]
    ours = LocalModel(models["mixture"]).loglikelihood_rolling(requests)
    assert ours == pytest.approx(
        HFLM.loglikelihood_rolling(stock(models["mixture"]), requests, disable_tqdm=True), abs=NOISE
    )


def test_a_model_that_says_no_numbers_is_one_line(models: dict[str, Path], asked: list[Instance]) -> None:
    model = LocalModel(models["base"])
    with torch.no_grad():
        model.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not numbers"):
        model.loglikelihood(asked[:4])


def test_scores_tell_choices_apart(said: dict[str, Scores]) -> None:
    nats = [score for score, _ in said["mixture"]]
    assert np.std(nats) > 1
    assert {greedy for _, greedy in said["mixture"]} == {True, False}
