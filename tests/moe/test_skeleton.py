"""A stock model run part by part: the logits of the whole model, the memory of one part, strict keys."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import load_model, read_config
from polyclinic.moe.skeleton import Parts, check_tensors, checked_files, expected_tensors, read_tensor, skeleton

EVERY = ("qwen2", "qwen3", "llama", "mistral", "phi3", "qwen2_moe", "qwen3_moe")


@pytest.fixture
def folder(request: pytest.FixtureRequest, dense: Any, mixture: Any, tmp_path: Path) -> Path:
    """Return a stock checkpoint of the model type asked for."""
    kind = request.param
    model = mixture(kind.removesuffix("_moe")) if kind.endswith("_moe") else dense(kind)
    model.save_pretrained(tmp_path / "stock", max_shard_size="40KB")
    return tmp_path / "stock"


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checked_files(folder)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("folder", EVERY, indirect=True)
def test_part_by_part_gives_the_logits_of_the_whole_model_bit_for_bit(folder: Path, dtype: torch.dtype) -> None:
    tokens = torch.arange(80).view(2, 40)
    parts, whole = Parts(folder, dtype), load_model(folder, dtype)
    assert torch.equal(parts(tokens), whole(tokens).logits)
    assert torch.equal(parts(tokens[:1]), whole(tokens[:1]).logits)


@pytest.mark.parametrize("folder", ["qwen3_moe"], indirect=True)
def test_one_part_at_a_time_holds_weights(folder: Path) -> None:
    parts, held = Parts(folder), []

    def note(part: Any, *_: Any) -> None:
        held.append([n for n, p in parts.model.named_parameters() if p.device.type != "meta"])

    for layer in parts.model.model.layers:
        layer.register_forward_pre_hook(note)
    parts(torch.arange(8)[None])
    assert [{n.split(".")[2] for n in names} for names in held] == [{"0"}, {"1"}, {"2"}]
    assert all(p.device.type == "meta" for p in parts.model.parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", EVERY)
def test_the_expected_tensors_are_those_that_the_stock_class_saves(
    dense: Any, mixture: Any, tmp_path: Path, kind: str, tied: bool
) -> None:
    make = mixture if kind.endswith("_moe") else dense
    make(kind.removesuffix("_moe"), tie_word_embeddings=tied).save_pretrained(tmp_path)
    saved = {n: tuple(t.shape) for n, t in load_file(tmp_path / "model.safetensors").items()}
    assert expected_tensors(skeleton(read_config(tmp_path), tmp_path)) == saved
    assert set(checked_files(tmp_path)) == set(saved)


def test_a_tied_head_that_is_stored_all_the_same_is_passed_over(
    dense: Any, change_tensors: Any, tmp_path: Path
) -> None:
    dense("qwen3", tie_word_embeddings=True).save_pretrained(tmp_path)
    tied, head = "model.embed_tokens.weight", "lm_head.weight"
    change_tensors(tmp_path, lambda t: t.update({head: t[tied].clone()}))
    assert head not in checked_files(tmp_path)
    change_tensors(tmp_path, lambda t: t.update({head: t[tied] + 1}))
    assert "ties the output head" in refusal(tmp_path)


def test_rotary_tables_of_early_llamas_are_passed_over(dense: Any, change_tensors: Any, tmp_path: Path) -> None:
    dense("llama").save_pretrained(tmp_path)
    before = checked_files(tmp_path)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(tmp_path, lambda t: t.update({name: torch.ones(4)}))
    assert checked_files(tmp_path) == before


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_one_tensor_missing_left_over_or_of_another_shape_is_named(
    made_once: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    from safetensors.torch import save_file

    tensors = load_file(_sound(made_once) / "model.safetensors")
    name = data.draw(st.sampled_from(sorted(tensors)))
    fault = data.draw(st.sampled_from(["missing", "unexpected", "longer", "flat"]))
    value = tensors[name]
    match fault:
        case "missing":
            del tensors[name]
        case "unexpected":
            name += ".more"
            tensors[name] = value.clone()
        case "longer":
            tensors[name] = torch.cat([value, value[:1]])
        case "flat":
            tensors[name] = value.reshape(-1, 1)
    broken = tmp_path_factory.mktemp("broken")
    shutil.copy(_sound(made_once) / "config.json", broken)
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    message = refusal(broken)
    assert name in message
    assert fault in message or "shape" in message


def _sound(made_once: Path) -> Path:
    """Make a dense checkpoint once; hypothesis cannot use fixtures of one test."""
    folder = made_once / "skeleton"
    if not folder.is_dir():
        from tests.moe.conftest import OWN, SIZES, _made

        _made("qwen3", 0, **SIZES | OWN["qwen3"]).save_pretrained(folder)
    return folder


def test_a_model_type_that_no_stock_class_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="stock classes"):
        skeleton({"model_type": "nobody_knows"}, tmp_path)


def test_a_check_against_other_names_finds_the_same_files(dense: Any, tmp_path: Path) -> None:
    dense("qwen3").save_pretrained(tmp_path)
    expected = expected_tensors(skeleton(read_config(tmp_path), tmp_path))
    files = check_tensors(tmp_path, expected)
    assert all(tuple(read_tensor(files, name).shape) == shape for name, shape in expected.items())
