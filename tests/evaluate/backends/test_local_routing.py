"""Rows of a batch go to the experts of their languages, in scores and in what is written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import apart, stock, written
from lm_eval.api.instance import Instance

import small
from polyclinic.errors import CheckpointError, UsageError
from polyclinic.evaluate.backends.experts import Experts
from polyclinic.evaluate.backends.local import LocalModel
from polyclinic.families import load_preset
from polyclinic.moe.attach import Routing, attach, routing
from polyclinic.moe.checkpoint import load_model, read_families
from polyclinic.records import Question

NOISE = 1e-4


def changed(requests: list[Instance], language: Any) -> list[Instance]:
    return [Instance(r.request_type, {"language": language}, r.args, r.idx) for r in requests]


def without(checkpoint: Path, folder: Path, name: str, **facts: Any) -> Path:
    """Copy a checkpoint with one of its JSON files changed; a value of None takes the entry out."""
    shutil.copytree(checkpoint, folder)
    values = json.loads((folder / name).read_text()) | facts
    (folder / name).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return folder


def test_languages_of_a_batch_are_routed_as_each_alone(hybrid: LocalModel, asked: list[Instance]) -> None:
    together = hybrid.loglikelihood(asked)
    for code in small.LANGUAGES:
        own = [i for i, request in enumerate(asked) if request.doc["language"] == code]
        assert apart(hybrid.loglikelihood([asked[i] for i in own]), [together[i] for i in own]) < NOISE


@torch.no_grad()
def test_hybrid_scores_are_those_of_a_plain_forward_inside_a_routing_block(
    models: dict[str, Path], hybrid: LocalModel, asked: list[Instance]
) -> None:
    model = load_model(models["mixture"]).eval()
    attach(model)
    expert_of = read_families(models["mixture"])["expert_of"]
    for request in [r for r in asked if r.args[0]][::9]:
        context, choice = hybrid._tokens(*request.args)
        with routing(model, Routing.HYBRID, [expert_of[request.doc["language"]]]):
            nats = model(input_ids=torch.tensor([context + choice])).logits[0].log_softmax(-1)
        expected = sum(nats[len(context) - 1 + i, token].item() for i, token in enumerate(choice))
        assert hybrid.loglikelihood([request])[0][0] == pytest.approx(expected, abs=NOISE)


@pytest.mark.parametrize("language", ["xx", None, 7, "eu"])  # Basque has no relatives
def test_a_language_without_an_expert_is_routed_as_stock(
    hybrid: LocalModel, asked: list[Instance], said: dict[str, Any], language: Any
) -> None:
    assert apart(hybrid.loglikelihood(changed(asked, language)), said["mixture"]) < NOISE


def test_routing_by_language_changes_scores(hybrid: LocalModel, asked: list[Instance], said: dict[str, Any]) -> None:
    differ = [abs(a[0] - b[0]) for a, b in zip(hybrid.loglikelihood(asked), said["mixture"], strict=True)]
    assert max(differ) > 0.1


def test_stock_routing_pays_no_heed_to_languages(
    models: dict[str, Path], asked: list[Instance], said: dict[str, Any]
) -> None:
    model = LocalModel(models["mixture"])
    assert apart(model.loglikelihood(changed(asked, "th")), said["mixture"]) < NOISE


def test_experts_are_those_that_the_checkpoint_records(models: dict[str, Path]) -> None:
    experts, preset = Experts(models["mixture"], 8), load_preset("balanced")
    assert {code: experts.of(code) for code in small.LANGUAGES} == {c: preset.expert_of(c) for c in small.LANGUAGES}
    assert experts.of("de") == preset.expert_of("de")  # listed, not recorded
    assert experts.of("yi") == preset.expert_of("de")  # beside its relatives
    assert experts.of("eu") == -1


@pytest.mark.parametrize("facts", [{"expert_of": {"en": 99}}, {"families": [{"languages": ["en"]}]}, {"expert_of": 3}])
def test_families_that_fit_no_expert_are_one_line(
    models: dict[str, Path], tmp_path: Path, facts: dict[str, Any]
) -> None:
    folder = without(models["mixture"], tmp_path / "odd", "polyclinic.json", **facts)
    with pytest.raises(CheckpointError, match="names experts"):
        LocalModel(folder, route="hybrid")


def test_a_dense_model_has_no_experts_to_route_to(models: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="has no experts") as caught:
        LocalModel(models["base"], route="hybrid")
    assert str(models["base"]) in str(caught.value)


def test_whole_texts_are_not_scored_by_language(hybrid: LocalModel) -> None:
    with pytest.raises(UsageError, match="stock routing"):
        hybrid.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("water",), 0)])


@pytest.mark.parametrize("name", ["base", "mixture"])
@pytest.mark.parametrize("settings", [{}, {"until": ["a", "ط"]}, {"max_gen_toks": 3, "until": []}, {"until": "e"}])
def test_what_is_written_is_what_lm_evals_own_class_writes(
    models: dict[str, Path], questions: list[Question], name: str, settings: dict[str, Any]
) -> None:
    requests = written(questions[:9], **settings)
    ours = LocalModel(models[name], batch_size=5).generate_until(requests)
    assert ours == stock(models[name]).generate_until(requests, disable_tqdm=True)
    assert len(set(ours)) > 2


def test_prompts_of_two_settings_are_each_written_by_their_own(
    models: dict[str, Path], questions: list[Question]
) -> None:
    requests = [*written(questions[:4], max_gen_toks=2), *written(questions[:4], max_gen_toks=9)]
    ours = LocalModel(models["mixture"]).generate_until(requests)
    assert ours == stock(models["mixture"]).generate_until(requests, disable_tqdm=True)
    assert ours[0] != ours[4]


def test_languages_of_a_batch_are_written_as_each_alone(hybrid: LocalModel, questions: list[Question]) -> None:
    requests = written(questions[:12])
    together = hybrid.generate_until(requests)
    for code in small.LANGUAGES:
        own = [i for i, request in enumerate(requests) if request.doc["language"] == code]
        assert hybrid.generate_until([requests[i] for i in own]) == [together[i] for i in own]
    assert together != hybrid.generate_until(changed(requests, "xx"))


def test_an_unknown_language_is_written_as_stock(
    models: dict[str, Path], hybrid: LocalModel, questions: list[Question]
) -> None:
    requests = written(questions[:6])
    theirs = stock(models["mixture"]).generate_until(requests, disable_tqdm=True)
    assert hybrid.generate_until(changed(requests, "xx")) == theirs


def test_a_prompt_too_long_loses_its_beginning(models: dict[str, Path], questions: list[Question]) -> None:
    requests = written(questions[:6], max_gen_toks=8)
    ours = LocalModel(models["mixture"])
    ours._max_length = 24
    theirs = stock(models["mixture"], max_length=24)
    assert ours.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)


def test_no_room_to_write_is_one_line(models: dict[str, Path], questions: list[Question]) -> None:
    model = LocalModel(models["base"])
    model._max_length = 8
    with pytest.raises(CheckpointError, match="leave no room"):
        model.generate_until(written(questions[:1], max_gen_toks=8))


@pytest.mark.parametrize("gone", [{"pad_token": None}, {"pad_token": None, "eos_token": None, "unk_token": None}])
def test_without_a_token_to_pad_the_end_token_does_and_without_both_it_is_one_line(
    models: dict[str, Path], questions: list[Question], tmp_path: Path, gone: dict[str, None]
) -> None:
    folder = without(models["base"], tmp_path / "odd", "tokenizer_config.json", **gone)
    requests = written(questions[:6])
    if "eos_token" in gone:
        with pytest.raises(CheckpointError, match="no token to end or pad"):
            LocalModel(folder)
    else:
        theirs = stock(models["base"]).generate_until(requests, disable_tqdm=True)
        assert LocalModel(folder).generate_until(requests) == theirs


def test_a_folder_without_a_tokenizer_is_one_line(models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["base"], tmp_path / "bare")
    for path in (tmp_path / "bare").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        LocalModel(tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer cannot be loaded"):
        LocalModel(tmp_path / "bare")
