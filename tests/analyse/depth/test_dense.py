"""Which models can be read: every gated FFN of the native architectures, and no mixture."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from polyclinic.analyse.depth.dense import down_projections, refuse_mixture
from polyclinic.analyse.depth.reading import read
from polyclinic.analyse.passages import Passage
from polyclinic.errors import CheckpointError
from polyclinic.progress import Silent

SIZES: dict[str, Any] = {
    **{"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": None},
}
GATED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "gemma",
    "gemma2",
    "glm",
    "olmo2",
    "granite",
    "cohere",
    "smollm3",
)


def made(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | changes)).eval()


@pytest.mark.parametrize("kind", [*GATED, "lfm2"])
def test_units_of_every_gated_ffn_are_read(kind: str) -> None:
    changes = {"layer_types": ["full_attention"] * 2} if kind == "lfm2" else {}
    model = made(kind, **changes)
    assert len(down_projections(model)) == 2
    found = read(model, [Passage("aa", str(i), [1 + i, 2, 3]) for i in range(4)], Silent())
    assert found.units == model.get_decoder().layers[0].get_parameter(_down(kind)).shape[1]
    assert (found.relevance_BGLU.sum((0, 1)) > 0).mean() > 0.9
    assert (found.activity_BGLU.sum((0, 1)) > 0).mean() > 0.9


def _down(kind: str) -> str:
    return "feed_forward.w2.weight" if kind == "lfm2" else "mlp.down_proj.weight"


def test_an_ffn_without_a_gate_is_refused() -> None:
    with pytest.raises(CheckpointError, match="gpt_neox: layer 0 has no gated FFN"):
        down_projections(made("gpt_neox"))


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_a_mixture_is_refused_by_its_config_and_by_its_layers(kind: str) -> None:
    model = made(kind)
    with pytest.raises(CheckpointError, match=f"{kind}: layer 0 holds experts"):
        down_projections(model)
    with pytest.raises(CheckpointError, match=r"here: is a mixture \(num_.*experts [0-9]+\)"):
        refuse_mixture(model.config.to_dict(), "here")
    refuse_mixture(made("llama").config.to_dict(), "here")
