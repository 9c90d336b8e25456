"""Every dense architecture becomes a stock mixture that gives its parent's logits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.moe.conftest import OWN, SIZES, _made
from torch import Tensor

from drawing import drawn
from polyclinic.moe.blueprint import BLUEPRINTS, Mixture, blueprint_for, dense_config, moe_config, notes
from polyclinic.moe.checkpoint import CONFIG, load_model, read_config
from polyclinic.moe.convert import headers, plan_tensors, write_tensors
from polyclinic.moe.skeleton import checked_files
from polyclinic.moe.verify import BOUND, verify
from polyclinic.runs import write_json

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32, "rope_theta": 5e5,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
WINDOWS: dict[str, list[dict[str, Any]]] = {
    "qwen2": [{}, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}],
    "mistral": [{"sliding_window": None}, {"sliding_window": 8}],
    "phi3": [{}, {"sliding_window": 9}],
}


def convert(dense_folder: Path, out: Path, mixture: Mixture) -> Path:
    raw = read_config(dense_folder)
    config, blueprint = dense_config(raw, dense_folder), blueprint_for(raw, dense_folder)
    files = checked_files(dense_folder)
    out.mkdir()
    write_tensors(plan_tensors(headers(files), config, blueprint, mixture), files, out, mixture.seed, {})
    write_json(out / CONFIG, moe_config(config, blueprint, mixture))
    return out


@st.composite
def shapes(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Draw a config of an architecture: heads, widths, ties, rotary embedding, windows."""
    head_dim, groups = draw(st.sampled_from([8, 16])), draw(st.integers(1, 3))
    kv_heads = draw(st.integers(1, 2))
    heads = groups * kv_heads
    own_width = kind not in ("phi3", "qwen2")  # whose classes take the width of a head from these two
    hidden = heads * (draw(st.sampled_from([8, 16, 24])) if own_width else head_dim)
    values = {
        "hidden_size": hidden,
        "intermediate_size": draw(st.integers(1, 6)) * 8,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": draw(st.booleans()),
        # Phi-3's own class takes the first and refuses the others or reads them as another kind.
        "rope_parameters": draw(st.sampled_from([None] if kind == "phi3" else [None, LLAMA3, YARN, LINEAR, DYNAMIC])),
        "max_position_embeddings": draw(st.sampled_from([36, 128])),  # of 40 tokens that the models see
        "rms_norm_eps": draw(st.sampled_from([1e-5, 1e-6])),
        "hidden_act": draw(st.sampled_from(["silu", "gelu"])),
        **draw(st.sampled_from(WINDOWS.get(kind, [{}]))),
        **({"head_dim": head_dim} if own_width else {}),
    }
    if kind == "qwen3":
        values["attention_bias"] = draw(st.booleans())
    return {k: v for k, v in values.items() if v is not None or k == "sliding_window"}


@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
@settings(deadline=None, max_examples=drawn(9), phases=(Phase.explicit, Phase.generate))
@given(data=st.data())
def test_the_mixture_of_any_shape_gives_its_parents_logits(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = SIZES | OWN[kind] | data.draw(shapes(kind))
    num_layers = config["num_hidden_layers"]
    sparse = data.draw(st.sets(st.integers(0, num_layers - 1), min_size=1))
    num_experts = data.draw(st.integers(2, 6))
    top_k = data.draw(st.integers(1, num_experts))
    shared = data.draw(st.sampled_from(["none", "zero"])) if BLUEPRINTS[kind].always_shared else "none"
    router = data.draw(st.sampled_from(["random", "zero"]))
    folder = tmp_path_factory.mktemp("shape")
    parent = _made(kind, 0, **config)
    assume(all(p.isfinite().all() for p in parent.parameters()))
    parent.save_pretrained(folder / "dense")
    mixture = Mixture(tuple(sorted(sparse)), num_experts, top_k, shared_expert=shared, router_init=router)
    out = convert(folder / "dense", folder / "moe", mixture)
    tokens = torch.randint(96, (2, 40))
    with torch.no_grad():
        expected, got = parent(tokens).logits, load_model(out)(tokens).logits
    assert (expected - got).abs().max() <= BOUND * expected.abs().max()
    facts = verify(folder / "dense", out, seed=1)
    assert facts["equal_by_design"]


CASES = {
    "qwen2": {},
    "qwen3": {"rope_parameters": YARN},
    "llama": {"rope_parameters": LLAMA3, "head_dim": 16},
    "mistral": {"sliding_window": 8, "head_dim": 12},
    "phi3": {"sliding_window": 9},
}
STOCK_LOADER = """
import json, sys, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
prompt = torch.arange(20).view(2, 10)
out = {}
for name in sys.argv[1:]:
    both = [AutoModelForCausalLM.from_pretrained(f"{name}/{kind}", dtype=torch.float32) for kind in ("dense", "moe")]
    told = [m.generate(prompt, max_new_tokens=30, do_sample=False, pad_token_id=0).tolist() for m in both]
    out[name] = {"class": type(both[1]).__name__, "same": told[0] == told[1]}
assert not any(name.startswith("polyclinic") for name in sys.modules)
print(json.dumps(out))
"""


def test_the_stock_loader_alone_loads_each_and_generates_with_a_cache_what_its_parent_does(tmp_path: Path) -> None:
    for kind, values in CASES.items():
        _made(kind, 0, **SIZES | OWN[kind] | values).save_pretrained(tmp_path / kind / "dense")
        convert(tmp_path / kind / "dense", tmp_path / kind / "moe", Mixture((1, 2), 3))
    names = [str(tmp_path / kind) for kind in CASES]
    done = subprocess.run(
        [sys.executable, "-c", STOCK_LOADER, *names], capture_output=True, text=True, check=True, timeout=120
    )
    told = json.loads(done.stdout.splitlines()[-1])
    for kind, name in zip(CASES, names, strict=True):
        assert told[name]["class"] == BLUEPRINTS[kind].architecture
        assert told[name]["same"], kind


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", sorted(BLUEPRINTS))
def test_a_parent_of_half_precision_stays_of_it_and_is_proven_in_single(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    _made(kind, 0, **SIZES | OWN[kind]).to(dtype).save_pretrained(tmp_path / "dense")
    out = convert(tmp_path / "dense", tmp_path / "moe", Mixture((1,), 4))
    assert read_config(out)["dtype"] == str(dtype).removeprefix("torch.")
    facts = verify(tmp_path / "dense", out, seed=0)
    assert facts["difference"] <= BOUND * facts["largest_logit"]


def test_a_parent_as_older_releases_wrote_it_gives_the_same_mixture(tmp_path: Path) -> None:
    """An older config.json: rope_theta and rope_scaling apart, `torch_dtype`, rotary tables and a head stored twice."""
    model = _made("llama", 0, **SIZES | {"rope_parameters": LLAMA3, "tie_word_embeddings": True})
    model.save_pretrained(tmp_path / "new")
    older = tmp_path / "old"
    older.mkdir()
    config = read_config(tmp_path / "new")
    rope = {k: v for k, v in config.pop("rope_parameters").items() if k != "rope_theta"}
    kept = {k: v for k, v in config.items() if k not in ("dtype", "head_dim", "attention_bias", "mlp_bias")}
    write_json(older / CONFIG, {**kept, "torch_dtype": "float32", "rope_theta": 5e5, "rope_scaling": rope})
    state: dict[str, Tensor] = {n: t.clone() for n, t in model.state_dict().items()}
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(state, older / "model.safetensors", metadata={"format": "pt"})
    made = [convert(tmp_path / n, tmp_path / f"{n}-moe", Mixture((1, 2), 3)) for n in ("new", "old")]
    assert read_config(made[0]) == read_config(made[1])
    assert (made[0] / "model.safetensors.index.json").read_bytes() == (
        made[1] / "model.safetensors.index.json"
    ).read_bytes()
    verify(older, made[1], seed=0)


def test_a_window_that_the_parents_class_does_not_know_is_none_of_the_mixtures(tmp_path: Path) -> None:
    """Converted checkpoints carry keys of the architecture they came from."""
    parent = _made("llama", 0, **SIZES)
    parent.save_pretrained(tmp_path / "dense")
    for key, value in (("sliding_window", 16), ("layer_types", ["sliding_attention"] * 3)):
        config = read_config(tmp_path / "dense") | {key: value}
        write_json(tmp_path / "dense" / CONFIG, config)
    assert notes(dense_config(read_config(tmp_path / "dense"), "here")) == []
    out = convert(tmp_path / "dense", tmp_path / "moe", Mixture((1, 2), 3))
    tokens = torch.randint(96, (1, 100))
    with torch.no_grad():
        expected, got = load_model(tmp_path / "dense")(tokens).logits, load_model(out)(tokens).logits
    assert (expected - got).abs().max() <= BOUND * expected.abs().max()
