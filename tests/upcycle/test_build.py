"""A dense folder becomes a stock mixture that computes what its parent computes, tokenizer and all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.upcycle.conftest import CASES, LANGUAGES, STRAY, config_of, refusal, tensors_of
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from polyclinic.errors import CheckpointError, RecipeError, UnknownLanguageError
from polyclinic.families import load_preset, preset_names
from polyclinic.languages import all_languages
from polyclinic.moe.blueprint import BLUEPRINTS, Mixture
from polyclinic.moe.checkpoint import load_model, read_families
from polyclinic.moe.verify import verify
from polyclinic.recipe import UpcycleSection
from polyclinic.upcycle.build import build, differs_by, family_facts
from polyclinic.upcycle.plan import experts_of

Build = Callable[..., Any]
FFN = ("gate_proj", "up_proj", "down_proj")


def form_of(kind: str) -> str:
    return "Qwen3MoeForCausalLM" if kind == "qwen3" else "Qwen2MoeForCausalLM"


def ffn_of(parent: dict[str, Tensor], layer: int) -> list[Tensor]:
    """Return gate, up and down projection of a dense layer; Phi-3 holds the first two in one tensor."""
    stem = f"model.layers.{layer}.mlp"
    gate_up = parent.get(f"{stem}.gate_up_proj.weight")
    if gate_up is not None:
        return [gate_up[:48], gate_up[48:], parent[f"{stem}.down_proj.weight"]]
    return [parent[f"{stem}.{part}.weight"] for part in FFN]


EMPTY = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # the shared expert of width zero


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return model.eval()(torch.arange(model.config.vocab_size)[None]).logits


# What is built


def test_the_cases_hold_every_architecture() -> None:
    assert {kind for kind, *_ in CASES} == set(BLUEPRINTS)


def test_the_mixture_loads_strictly_and_gives_the_parents_logits(built: Any) -> None:
    expected, got = logits(load_model(built.dense)), logits(load_model(built.out))
    assert (expected - got).abs().max() <= 2e-6 * expected.abs().max()
    assert expected.std() > 0.1


def test_the_facts_are_the_proof_and_the_size(built: Any) -> None:
    facts, sizes = built.facts, [t.nbytes for t in tensors_of(built.out).values()]
    assert facts["sparse_layers"] == [1, 2]
    assert facts["num_experts"] == load_preset("apollo").num_experts == 7
    assert facts["bytes"] == sum(sizes)
    assert facts["equal_by_design"] is True
    assert facts["differs_by"] == []
    assert facts["notes"] == []
    assert facts["difference"] <= 2e-6 * facts["largest_logit"]
    assert facts["mixture_difference"] <= 2e-6 * facts["largest_output"]
    assert facts["largest_output"] > 0
    assert 0 < facts["bf16_difference"] < 0.1 * facts["largest_logit"]
    own = ("mlp.gate.weight", "mlp.shared_expert")
    assert facts["copied_tensors"] == len([n for n in tensors_of(built.out) if not any(part in n for part in own)])


def test_every_expert_is_the_parents_ffn_in_the_parents_dtype(built: Any) -> None:
    parent, made = tensors_of(built.dense), tensors_of(built.out)
    for layer in (1, 2):
        for part, ffn in zip(FFN, ffn_of(parent, layer), strict=True):
            for expert in range(7):
                copied = made[f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight"]
                assert copied.dtype == built.dtype
                assert torch.equal(copied, ffn)
    assert {t.dtype for t in made.values()} == {built.dtype}
    assert ("lm_head.weight" in made) is not built.tied


def test_the_routers_are_random_and_no_two_layers_have_the_same(built: Any) -> None:
    first, second = (tensors_of(built.out)[f"model.layers.{layer}.mlp.gate.weight"].float() for layer in (1, 2))
    assert first.shape == second.shape == (7, 32)
    for rows in (first, second):
        assert rows.std().item() == pytest.approx(0.02, rel=0.2)
    assert not torch.equal(first, second)


def test_the_config_makes_a_post_moe_without_balance_loss(built: Any) -> None:
    config = config_of(built.out)
    assert config["architectures"] == [form_of(built.kind)]
    assert config["mlp_only_layers"] == [0]
    assert config["decoder_sparse_step"] == 1
    assert config["router_aux_loss_coef"] == 0.0
    assert config["norm_topk_prob"] is True
    assert (config["num_experts"], config["num_experts_per_tok"]) == (7, 2)
    assert config["tie_word_embeddings"] is built.tied
    assert "auto_map" not in config


@EMPTY
def test_the_stock_loader_takes_it_with_no_key_missing_or_left_over(built: Any) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(built.out, output_loading_info=True)
    assert type(model).__name__ == form_of(built.kind)
    assert not any(info.values())
    assert model.dtype == built.dtype
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is built.tied
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        loss, with_router = (model(tokens, labels=tokens, output_router_logits=asked).loss for asked in (False, True))
    assert torch.equal(loss, with_router)


def test_tokenizer_template_and_settings_travel_unchanged_and_nothing_else_does(built: Any) -> None:
    beside = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"}
    for name in beside:
        assert (built.out / name).read_bytes() == (built.dense / name).read_bytes()
    weights = {p.name for p in built.out.glob("*.safetensors")} | {"model.safetensors.index.json"}
    assert {p.name for p in built.out.iterdir()} == weights | beside | {"config.json", "polyclinic.json"}
    assert {p.name for p in built.dense.iterdir()} >= {*STRAY}
    there, here = (AutoTokenizer.from_pretrained(folder) for folder in (built.dense, built.out))
    message = [{"role": "user", "content": "fever and cough 发烧"}]
    assert here.apply_chat_template(message) == there.apply_chat_template(message)


def test_the_family_map_names_the_presets_expert_of_every_language(built: Any) -> None:
    facts, preset = read_families(built.out), load_preset("apollo")
    assert facts["preset"] == "apollo"
    assert facts["sparse_layers"] == [1, 2]
    assert facts["expert_of"] == {code: preset.expert_of(code) for code in ("ar", "en", "sw", "yo", "zh")}
    assert [tuple(f["languages"]) for f in facts["families"]] == [f.languages for f in preset.families]
    assert [f["name"] for f in facts["families"]] == [f.name for f in preset.families]


def test_a_router_of_zeros_is_one_and_the_family_map_says_how_the_mixture_was_made(
    built_with: Build, dense_of: Build
) -> None:
    values = {"norm_topk_prob": False, "router_init": "zero", "noise": 0.25, "shared_expert": "zero"}
    made = built_with(seed=5, parent=dense_of("qwen2"), **values)
    assert read_families(made.out)["made"] == {
        "normalise": False, "router_init": "zero", "noise": 0.25, "shared_expert": "zero", "reinit": 0.0, "seed": 5,
    }  # fmt: skip
    assert not any(t.any() for name, t in tensors_of(made.out).items() if name.endswith("mlp.gate.weight"))


# Other choices


@pytest.mark.parametrize(
    ("layers", "dense_layers", "top_k"),
    [({"last_layers": 1}, [0, 1], 1), ({"last_layers": 3}, [], 3), ({"layers": [2, 0]}, [1], 7)],
)
def test_the_layers_asked_for_and_no_others_become_sparse_with_any_number_of_picks(
    built_with: Build, layers: dict[str, Any], dense_layers: list[int], top_k: int
) -> None:
    made = built_with(**layers, top_k=top_k)
    assert load_model(made.out).config.num_experts_per_tok == top_k
    assert config_of(made.out)["mlp_only_layers"] == dense_layers
    routers = {int(name.split(".")[2]) for name in tensors_of(made.out) if name.endswith("mlp.gate.weight")}
    assert sorted({*routers, *dense_layers}) == [0, 1, 2]
    assert not routers & set(dense_layers)
    assert made.facts["sparse_layers"] == sorted(routers)
    assert made.facts["difference"] <= 2e-6 * made.facts["largest_logit"]


def test_the_same_seed_gives_the_same_bytes_and_figures_and_another_one_another_router(built_with: Build) -> None:
    first, again, other = built_with("first", seed=5), built_with("again", seed=5), built_with("other", seed=6)
    bits = [{p.name: p.read_bytes() for p in made.out.iterdir()} for made in (first, again)]
    assert bits[0] == bits[1]
    before, after = tensors_of(first.out), tensors_of(other.out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{i}.mlp.gate.weight" for i in (1, 2)}
    proven = verify(first.dense, first.out, 5)
    assert {"difference", "copied_tensors", "mixture_difference", "bf16_difference"} <= set(proven)
    assert proven == {key: first.facts[key] for key in proven}


def test_weights_that_are_not_normalised_are_named_and_the_other_proofs_are_run(built_with: Build) -> None:
    made = built_with(norm_topk_prob=False)
    check_moved(made.facts, "weights of the picks not normalised")
    assert config_of(made.out)["norm_topk_prob"] is False


def check_moved(facts: dict[str, Any], why: str) -> None:
    assert facts["equal_by_design"] is False
    assert facts["differs_by"] == [why]
    assert facts["difference"] > 1e-3 * facts["largest_logit"]
    assert facts["mixture_difference"] <= 2e-6 * facts["largest_output"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"noise": 0.1}, "noise of 0.1 standard deviations on the experts"),
        ({"reinit": 0.5}, "50% of the experts' inner units drawn again"),
    ],
)
def test_experts_that_are_moved_are_all_different_and_nothing_else_is_moved(
    built_with: Build, values: dict[str, float], why: str
) -> None:
    made = built_with(**values)
    check_moved(made.facts, why)
    tensors, parent = tensors_of(made.out), tensors_of(made.dense)
    experts = [tensors[f"model.layers.1.mlp.experts.{e}.up_proj.weight"] for e in range(7)]
    experts.append(parent["model.layers.1.mlp.up_proj.weight"])
    assert not any(torch.equal(a, b) for i, a in enumerate(experts) for b in experts[:i])
    kept = [name for name in tensors if ".experts." not in name and not name.endswith("mlp.gate.weight")]
    assert made.facts["copied_tensors"] == len(kept)
    assert all(torch.equal(tensors[name], parent[name]) for name in kept)


@pytest.mark.parametrize("how", ["zero", "copy"])
def test_a_silent_shared_expert_leaves_the_start_equal_and_a_copy_does_not(
    built_with: Build, dense_of: Build, how: str
) -> None:
    made = built_with(how, parent=dense_of("qwen2"), shared_expert=how)
    tensors = tensors_of(made.out)
    assert config_of(made.out)["shared_expert_intermediate_size"] == 48
    assert tensors["model.layers.2.mlp.shared_expert.down_proj.weight"].any() == (how == "copy")
    up = tensors["model.layers.2.mlp.shared_expert.up_proj.weight"]
    assert torch.equal(up, tensors["model.layers.2.mlp.experts.0.up_proj.weight"])
    if how == "copy":
        check_moved(made.facts, "a shared expert that begins as a copy")
    else:
        assert made.facts["equal_by_design"]


def test_every_moving_choice_is_named_and_no_other_is() -> None:
    assert differs_by(Mixture((0,), 2, router_init="zero", shared_expert="zero", top_k=1)) == []
    both = differs_by(Mixture((0,), 2, normalise=False, noise=0.5))
    assert both == ["noise of 0.5 standard deviations on the experts", "weights of the picks not normalised"]


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_config_written_by_older_releases_is_understood(dense_of: Build, kind: str) -> None:
    """Hub checkpoints of 2024 say rope_theta and torch_dtype, and list no layer types."""
    dense = dense_of(kind)
    out = dense.with_name("out")
    config = {k: v for k, v in config_of(dense).items() if k not in ("rope_parameters", "layer_types", "dtype")}
    old = {"rope_theta": 5000.0, "torch_dtype": "float32", "sliding_window": 64, "max_window_layers": 1}
    (dense / "config.json").write_text(json.dumps(config | old | {"use_sliding_window": False}))
    out.mkdir()
    facts = build(dense, out, UpcycleSection(families="apollo"), ["en"], 0)
    assert AutoConfig.from_pretrained(out).rope_parameters["rope_theta"] == 5000.0
    assert facts["notes"] == []


@pytest.mark.parametrize(
    ("kind", "window", "sliding"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, [1, 2]),
        ("mistral", {"sliding_window": 8}, [0, 1, 2]),
    ],
)
def test_a_sliding_window_is_held_layer_by_layer_and_noted(
    built_with: Build, dense_of: Build, kind: str, window: dict[str, Any], sliding: list[int]
) -> None:
    made = built_with(parent=dense_of(kind, **window))
    config = AutoConfig.from_pretrained(made.out)
    assert [i for i, t in enumerate(config.layer_types) if t == "sliding_attention"] == sliding
    assert config.sliding_window == 8
    assert made.facts["difference"] <= 2e-6 * made.facts["largest_logit"]
    (note,) = made.facts["notes"]
    assert "window of 8 tokens" in note
    expected, got = logits(load_model(made.dense)), logits(load_model(made.out))
    assert (expected - got).abs().max() <= 2e-6 * expected.abs().max()


def test_a_families_file_of_ones_own_makes_one_expert_per_family(built_with: Build, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nfamilies:\n- {name: a, languages: [en, sw]}\n- {name: b, languages: [zh, ar]}\n")
    made = built_with(families=str(mine))
    assert config_of(made.out)["num_experts"] == 2
    experts = read_families(made.out)["expert_of"]
    assert [experts[code] for code in ("en", "sw", "zh", "ar")] == [0, 0, 1, 1]


# Contradictions

CONTRADICTIONS = [
    ({"num_experts": 8}, "'apollo' has 7"),
    ({"top_k": 8}, "top_k 8 of 7 experts"),
    ({"last_layers": 4}, "4 of 3 layers"),
    ({"layers": [1, 3]}, "layer 3 of 3 layers"),
    ({"families": "appolo"}, "appolo"),
    ({"shared_expert": "zero"}, "qwen3_moe has no shared expert"),
]


@pytest.mark.parametrize(("values", "said"), CONTRADICTIONS)
def test_a_contradiction_is_refused_before_anything_is_written(
    built_with: Build, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    assert said in refusal(lambda: built_with(**values), RecipeError, 3)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gemma2"}, "gemma2"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": None}, "window"),
        ({"auto_map": {"AutoConfig": "x.Y"}}, "auto_map"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_hidden_layers": 2, "layer_types": None}, "model.layers.2"),
        ({"vocab_size": 100}, "shape"),
    ],
)
def test_a_parent_that_cannot_be_a_mixture_is_refused_before_anything_is_written(
    built_with: Build, dense: Path, change: dict[str, Any], said: str
) -> None:
    (dense / "config.json").write_text(json.dumps(config_of(dense) | change))
    assert said in refusal(built_with, CheckpointError, 4)
    assert list(dense.with_name("out").iterdir()) == []


def test_a_tokenizer_with_more_ids_than_the_embedding_is_refused(built_with: Build, dense_of: Build) -> None:
    parent = dense_of("qwen3", vocab_size=200)
    assert "largest id" in refusal(lambda: built_with(parent=parent), CheckpointError, 4)
    assert list(parent.with_name("out").iterdir()) == []


# Families


@pytest.mark.parametrize("name", preset_names())
def test_every_known_language_has_an_expert_that_is_there_in_every_preset(name: str) -> None:
    preset = experts_of(UpcycleSection(families=name))
    facts = family_facts(preset, all_languages(), Mixture((0,), preset.num_experts))
    assert set(facts["expert_of"]) == set(all_languages())
    assert all(expert in range(preset.num_experts) for expert in facts["expert_of"].values())
    for number, family in enumerate(facts["families"]):
        assert {facts["expert_of"][code] for code in family["languages"]} == {number}


def test_an_unknown_language_is_refused_before_anything_is_written(dense: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    section = UpcycleSection(families="apollo")
    said = refusal(lambda: build(dense, tmp_path / "out", section, (*LANGUAGES, "xx"), 0), UnknownLanguageError, 3)
    assert "xx" in said
    assert list((tmp_path / "out").iterdir()) == []
