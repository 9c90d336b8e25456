"""A dense folder becomes a stock mixture that computes what its parent computes, tokenizer and all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from polyclinic.errors import CheckpointError, RecipeError
from polyclinic.families import load_preset, preset_names
from polyclinic.languages import all_languages
from polyclinic.moe.checkpoint import load_model, read_families
from polyclinic.recipe import UpcycleSection
from polyclinic.upcycle.build import build, family_facts
from polyclinic.upcycle.plan import experts_of, sparse_layers

Build = Callable[..., Any]
MIXTURES = {"qwen2": "Qwen2MoeForCausalLM", "qwen3": "Qwen3MoeForCausalLM"}


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text("utf-8")))


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return model.eval()(torch.arange(model.config.vocab_size)[None]).logits


def refusal(work: Callable[[], object], kind: type[Exception] = RecipeError, exit_code: int = 3) -> str:
    with pytest.raises(kind) as caught:
        work()
    assert caught.value.exit_code == exit_code
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is built


def test_the_mixture_loads_strictly_and_gives_the_parents_logits(built: Any) -> None:
    expected, got = logits(load_model(built.dense)), logits(load_model(built.out))
    assert (expected - got).abs().max() <= 2e-6 * expected.abs().max()
    assert expected.std() > 0.1


def test_the_facts_are_the_proof_and_the_size(built: Any) -> None:
    facts, sizes = built.facts, [t.nbytes for t in tensors_of(built.out).values()]
    assert facts["sparse_layers"] == [1, 2]
    assert facts["num_experts"] == load_preset("apollo").num_experts == 7
    assert facts["bytes"] == sum(sizes)
    assert facts["difference"] <= 2e-6 * facts["largest_logit"]
    assert facts["mixture_difference"] <= 2e-6 * facts["largest_output"]


def test_every_expert_is_the_parents_ffn_in_the_parents_dtype(built: Any) -> None:
    parent, made = tensors_of(built.dense), tensors_of(built.out)
    for layer in (1, 2):
        for part in ("gate_proj", "up_proj", "down_proj"):
            ffn = parent[f"model.layers.{layer}.mlp.{part}.weight"]
            for expert in range(7):
                copied = made[f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight"]
                assert copied.dtype == built.dtype
                assert torch.equal(copied, ffn)
    assert {t.dtype for t in made.values()} == {built.dtype}
    assert ("lm_head.weight" in made) is not built.tied


def test_the_config_makes_a_post_moe_without_balance_loss(built: Any) -> None:
    config = config_of(built.out)
    assert config["architectures"] == [MIXTURES[built.kind]]
    assert config["mlp_only_layers"] == [0]
    assert config["decoder_sparse_step"] == 1
    assert config["router_aux_loss_coef"] == 0.0
    assert config["norm_topk_prob"] is True
    assert (config["num_experts"], config["num_experts_per_tok"]) == (7, 2)
    assert config["tie_word_embeddings"] is built.tied
    assert "auto_map" not in config


def test_the_stock_loader_takes_it_with_no_key_missing_or_left_over(built: Any) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(built.out, output_loading_info=True)
    assert type(model).__name__ == MIXTURES[built.kind]
    assert not any(info.values())
    assert model.dtype == built.dtype
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is built.tied
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        loss, with_router = (model(tokens, labels=tokens, output_router_logits=asked).loss for asked in (False, True))
    assert torch.equal(loss, with_router)


def test_whatever_lies_beside_the_parents_weights_travels_unchanged(built: Any) -> None:
    own = ("config.json", "model.safetensors.index.json")
    beside = [p for p in built.dense.iterdir() if p.suffix != ".safetensors" and p.name not in own]
    assert len(beside) >= 4  # tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json
    for path in beside:
        assert (built.out / path.name).read_bytes() == path.read_bytes()
    there, here = (AutoTokenizer.from_pretrained(folder) for folder in (built.dense, built.out))
    message = [{"role": "user", "content": "fever and cough 发烧"}]
    assert here.apply_chat_template(message) == there.apply_chat_template(message)


def test_the_family_map_names_the_presets_expert_of_every_language(built: Any) -> None:
    facts, preset = read_families(built.out), load_preset("apollo")
    assert facts["preset"] == "apollo"
    assert facts["sparse_layers"] == [1, 2]
    assert facts["expert_of"] == {code: preset.expert_of(code) for code in ("ar", "en", "sw", "yo", "zh")}
    assert [tuple(f["languages"]) for f in facts["families"]] == [f.languages for f in preset.families]


# Other choices


@pytest.mark.parametrize(("last_layers", "dense_layers"), [(1, [0, 1]), (3, [])])
def test_the_last_layers_and_no_others_become_sparse(
    built_with: Build, last_layers: int, dense_layers: list[int]
) -> None:
    made = built_with(last_layers=last_layers)
    assert config_of(made.out)["mlp_only_layers"] == dense_layers
    routers = {int(name.split(".")[2]) for name in tensors_of(made.out) if name.endswith("mlp.gate.weight")}
    assert sorted({*routers, *dense_layers}) == [0, 1, 2]
    assert not routers & set(dense_layers)


@pytest.mark.parametrize("top_k", [1, 7])
def test_any_number_of_picks_equals_the_parent(built_with: Build, top_k: int) -> None:
    made = built_with(top_k=top_k)
    assert load_model(made.out).config.num_experts_per_tok == top_k
    assert made.facts["difference"] <= 2e-6 * made.facts["largest_logit"]


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_router(built_with: Build) -> None:
    first, again, other = built_with("first", seed=5), built_with("again", seed=5), built_with("other", seed=6)
    bits = [{p.name: p.read_bytes() for p in made.out.iterdir()} for made in (first, again)]
    assert bits[0] == bits[1]
    before, after = tensors_of(first.out), tensors_of(other.out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{i}.mlp.gate.weight" for i in (1, 2)}


def test_noise_moves_the_experts_apart_and_claims_no_proof(built_with: Build) -> None:
    made = built_with(noise=0.1)
    assert set(made.facts) == {"sparse_layers", "num_experts", "bytes"}
    experts = [tensors_of(made.out)[f"model.layers.1.mlp.experts.{e}.up_proj.weight"] for e in range(7)]
    assert not any(torch.equal(a, b) for i, a in enumerate(experts) for b in experts[:i])
    load_model(made.out)


@pytest.mark.parametrize("kind", sorted(MIXTURES))
def test_a_config_written_by_older_releases_is_understood(dense_of: Build, kind: str) -> None:
    """Hub checkpoints of 2024 say rope_theta and torch_dtype, and list no layer types."""
    dense = dense_of(kind)
    out = dense.with_name("out")
    config = {k: v for k, v in config_of(dense).items() if k not in ("rope_parameters", "layer_types", "dtype")}
    old = {"rope_theta": 5000.0, "torch_dtype": "float32", "sliding_window": 64, "max_window_layers": 1}
    (dense / "config.json").write_text(json.dumps(config | old | {"use_sliding_window": False}))
    out.mkdir()
    build(dense, out, UpcycleSection(families="apollo"), ["en"], 0)
    assert AutoConfig.from_pretrained(out).rope_parameters["rope_theta"] == 5000.0


def test_a_families_file_of_ones_own_makes_one_expert_per_family(built_with: Build, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nfamilies:\n- {name: a, languages: [en, sw]}\n- {name: b, languages: [zh, ar]}\n")
    made = built_with(families=str(mine))
    assert config_of(made.out)["num_experts"] == 2
    experts = read_families(made.out)["expert_of"]
    assert [experts[code] for code in ("en", "sw", "zh", "ar")] == [0, 0, 1, 1]


# Contradictions


def test_a_number_of_experts_other_than_the_presets_is_refused(built_with: Build) -> None:
    message = refusal(lambda: built_with(num_experts=8))
    assert "8" in message
    assert "'apollo' has 7" in message
    assert built_with("agreed", num_experts=7).facts["num_experts"] == 7


def test_more_picks_than_experts_are_refused(built_with: Build) -> None:
    assert "top_k 8 of 7 experts" in refusal(lambda: built_with(top_k=8))


def test_more_sparse_layers_than_layers_are_refused(built_with: Build) -> None:
    assert "4 of 3 layers" in refusal(lambda: built_with(last_layers=4))


def test_an_unknown_preset_is_refused(built_with: Build) -> None:
    assert "appolo" in refusal(lambda: built_with(families="appolo"))


def test_contradictions_are_refused_before_anything_is_written(built_with: Build, tmp_path: Path) -> None:
    for number, values in enumerate(({"num_experts": 8}, {"top_k": 8}, {"last_layers": 4}, {"families": "appolo"})):
        refusal(lambda values=values, number=number: built_with(f"out{number}", **values))
        assert list((tmp_path / f"out{number}").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gemma2"}, "gemma2"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"auto_map": {"AutoConfig": "x.Y"}}, "auto_map"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
    ],
)
def test_a_parent_that_cannot_be_a_mixture_is_refused_before_anything_is_written(
    built_with: Build, dense: Path, change: dict[str, Any], said: str
) -> None:
    (dense / "config.json").write_text(json.dumps(config_of(dense) | change))
    assert said in refusal(built_with, CheckpointError, 4)
    assert list(dense.with_name("out").iterdir()) == []


# Numbers and families


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40))
def test_sparse_layers_are_the_last_ones_in_order(num_layers: int, last: int) -> None:
    if last > num_layers:
        refusal(lambda: sparse_layers(num_layers, last))
    else:
        assert sparse_layers(num_layers, last) == tuple(range(num_layers))[-last:]


@pytest.mark.parametrize("name", preset_names())
def test_every_known_language_has_an_expert_that_is_there_in_every_preset(name: str) -> None:
    preset = experts_of(UpcycleSection(families=name))
    facts = family_facts(preset, all_languages(), (0,))
    assert set(facts["expert_of"]) == set(all_languages())
    assert all(expert in range(preset.num_experts) for expert in facts["expert_of"].values())
    for number, family in enumerate(facts["families"]):
        assert {facts["expert_of"][code] for code in family["languages"]} == {number}
