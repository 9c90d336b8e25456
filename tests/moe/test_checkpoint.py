"""Checkpoint folders are read strictly: whatever is wrong ends in one line and exit code 4."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from polyclinic.errors import CheckpointError
from polyclinic.moe.checkpoint import (
    load_model,
    read_config,
    read_families,
    resolve,
    tensor_files,
    write_families,
)
from polyclinic.runs import read_json, write_json

INDEX = "model.safetensors.index.json"
NORM, ROUTER = "model.norm.weight", "model.layers.1.mlp.gate.weight"
UP, DOWN = (f"model.layers.1.mlp.experts.4.{part}_proj.weight" for part in ("up", "down"))


@pytest.fixture
def single(made_once: Path, dense: Any, tmp_path: Path) -> Path:
    """Return a private copy of a dense folder with one weight file."""
    if not (made_once / "single").is_dir():
        dense("qwen3").save_pretrained(made_once / "single")
    return Path(shutil.copytree(made_once / "single", tmp_path / "single"))


@pytest.fixture
def sharded(made_once: Path, dense: Any, tmp_path: Path) -> Path:
    if not (made_once / "sharded").is_dir():
        dense("qwen3").save_pretrained(made_once / "sharded", max_shard_size="50KB")
    return Path(shutil.copytree(made_once / "sharded", tmp_path / "sharded"))


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        work()
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names_in(path: Path) -> set[str]:
    return set(load_file(path))


# Sound folders


def test_a_single_file_and_shards_hold_the_same_model(single: Path, sharded: Path) -> None:
    assert set(tensor_files(single)) == set(tensor_files(sharded)) == names_in(single / "model.safetensors")
    assert len(set(tensor_files(sharded).values())) > 2
    for name, path in tensor_files(sharded).items():
        assert name in names_in(path)
    tokens = torch.arange(12)[None]
    assert torch.equal(load_model(single)(tokens).logits, load_model(sharded)(tokens).logits)


def test_a_model_is_loaded_in_the_dtype_asked_for(single: Path) -> None:
    assert {p.dtype for p in load_model(single).parameters()} == {torch.float32}
    assert {p.dtype for p in load_model(single, torch.bfloat16).parameters()} == {torch.bfloat16}


def test_of_a_single_file_and_an_index_the_one_that_the_stock_loader_takes_is_read(sharded: Path, dense: Any) -> None:
    other = dense("qwen3", seed=1)
    other.save_pretrained(sharded.parent / "other")
    shutil.copy(sharded.parent / "other" / "model.safetensors", sharded)
    assert set(tensor_files(sharded).values()) == {sharded / "model.safetensors"}
    assert torch.equal(load_model(sharded).state_dict()[NORM], other.state_dict()[NORM])


def test_families_are_read_as_they_were_written(tmp_path: Path) -> None:
    facts = {"format": 1, "expert_of": {"en": 0, "zh": 1}, "families": [{"name": "中", "languages": ["zh"]}]}
    write_families(tmp_path, facts)
    assert read_families(tmp_path) == facts


# Broken folders


def test_a_folder_with_code_of_its_own_is_refused_and_the_code_is_not_run(single: Path, change_config: Any) -> None:
    (single / "evil.py").write_text(f"open({str(single / 'ran')!r}, 'w')\n")
    change_config(single, auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
    assert "auto_map" in refusal(lambda: load_model(single))
    assert "auto_map" in refusal(lambda: read_config(single))
    assert not (single / "ran").exists()


def test_a_missing_shard_is_named(sharded: Path) -> None:
    gone = sorted(sharded.glob("model-*.safetensors"))[1]
    gone.unlink()
    assert f"{gone.name}: the index names it, it is not there" in refusal(lambda: load_model(sharded))


def test_an_index_that_names_an_absent_tensor_is_refused(sharded: Path) -> None:
    index = read_json(sharded / INDEX)
    index["weight_map"]["model.invented.weight"] = index["weight_map"][NORM]
    write_json(sharded / INDEX, index)
    assert "model.invented.weight" in refusal(lambda: load_model(sharded))


def test_a_shard_that_holds_a_tensor_unknown_to_the_index_is_refused(sharded: Path) -> None:
    index = read_json(sharded / INDEX)
    del index["weight_map"][NORM]
    write_json(sharded / INDEX, index)
    assert NORM in refusal(lambda: load_model(sharded))


def test_an_index_that_names_the_wrong_shard_is_refused(sharded: Path) -> None:
    index = read_json(sharded / INDEX)
    right = index["weight_map"][NORM]
    index["weight_map"][NORM] = next(f for f in index["weight_map"].values() if f != right)
    write_json(sharded / INDEX, index)
    assert NORM in refusal(lambda: load_model(sharded))


@pytest.mark.parametrize("elsewhere", ["../other/model.safetensors", "{folder}-other/model.safetensors", "deep/er"])
def test_an_index_that_names_a_file_outside_its_folder_is_refused(sharded: Path, elsewhere: str) -> None:
    for other in (sharded.with_name("other"), sharded.with_name(f"{sharded.name}-other"), sharded / "deep"):
        other.mkdir()
    target = sharded / elsewhere.format(folder=sharded)
    index = read_json(sharded / INDEX)
    shutil.copy(sharded / index["weight_map"][NORM], target)
    moved = {n: str(elsewhere.format(folder=sharded)) for n in names_in(target)}
    write_json(sharded / INDEX, index | {"weight_map": index["weight_map"] | moved})
    assert "elsewhere" in refusal(lambda: load_model(sharded))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_a_damaged_index_is_refused(sharded: Path, text: str) -> None:
    (sharded / INDEX).write_text(text)
    assert INDEX in refusal(lambda: load_model(sharded))


def test_a_folder_with_pickled_weights_only_is_refused(single: Path) -> None:
    (single / "model.safetensors").rename(single / "pytorch_model.bin")
    assert "no safetensors" in refusal(lambda: load_model(single))


def test_a_missing_tensor_is_named(single: Path, change_tensors: Any) -> None:
    change_tensors(single, lambda t: t.pop(NORM))
    message = refusal(lambda: load_model(single))
    assert "missing" in message
    assert NORM in message


def test_an_extra_tensor_is_named(single: Path, change_tensors: Any) -> None:
    change_tensors(single, lambda t: t.update({"model.extra.weight": torch.ones(3)}))
    message = refusal(lambda: load_model(single))
    assert "unexpected" in message
    assert "model.extra.weight" in message


def test_a_tensor_of_another_shape_is_named(single: Path, change_tensors: Any) -> None:
    change_tensors(single, lambda t: t.update({NORM: torch.ones(33)}))
    message = refusal(lambda: load_model(single))
    assert NORM in message
    assert "33" in message
    assert "32" in message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(single: Path, share: float) -> None:
    path = single / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "model.safetensors" in refusal(lambda: load_model(single))


def test_weights_that_are_no_safetensors_are_refused(single: Path) -> None:
    (single / "model.safetensors").write_bytes(b"<!DOCTYPE html>" * 100)
    assert "model.safetensors" in refusal(lambda: load_model(single))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[[1, 2]]", "\xff"])
def test_a_config_that_is_no_json_object_is_refused(single: Path, text: str) -> None:
    (single / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refusal(lambda: load_model(single))


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "nobody_knows"},
        {"hidden_size": "many"},
        {"hidden_size": 64},
        {"num_hidden_layers": 2, "layer_types": None},
        {"num_hidden_layers": 4, "layer_types": None},
        {"num_hidden_layers": 4},
        {"num_attention_heads": 0},
        {"vocab_size": None},
        {"hidden_act": "nothing"},
        {"rope_parameters": {"rope_type": "nothing"}},
        {"architectures": 5, "vocab_size": 7},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_the_weights_is_refused(
    single: Path, change_config: Any, values: dict[str, Any]
) -> None:
    change_config(single, **values)
    assert str(single) in refusal(lambda: load_model(single))


@pytest.mark.parametrize("name", [".", "model.safetensors"])
def test_a_folder_without_config_is_refused(single: Path, name: str) -> None:
    (single / "config.json").unlink()
    assert "config.json" in refusal(lambda: load_model(single / name))


@pytest.mark.parametrize("name", [UP, DOWN, ROUTER])
def test_a_mixture_that_lacks_a_router_or_part_of_an_expert_is_refused_by_the_name_of_the_tensor(
    pair: tuple[Path, Path], change_tensors: Any, name: str
) -> None:
    change_tensors(pair[1], lambda t: t)
    load_model(pair[1])
    change_tensors(pair[1], lambda t: t.pop(name))
    assert f"missing keys: {name}" in refusal(lambda: load_model(pair[1]))


@pytest.mark.parametrize("change", [{"num_experts": 4}, {"num_experts": 6}, {"mlp_only_layers": []}])
def test_a_mixture_with_more_or_fewer_experts_than_its_config_is_refused(
    pair: tuple[Path, Path], change_config: Any, change: dict[str, Any]
) -> None:
    change_config(pair[1], **change)
    assert ".mlp." in refusal(lambda: load_model(pair[1]))


def test_a_refusal_prints_nothing_and_leaves_the_verbosity_as_it_was(
    pair: tuple[Path, Path],
    change_tensors: Any,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    load_model(pair[1])
    change_tensors(pair[1], lambda t: (t.pop(ROUTER), t.update(extra=torch.ones(1))))
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    capfd.readouterr()
    refusal(lambda: load_model(pair[1]))
    assert "".join(capfd.readouterr()) == ""
    assert [str(w.message) for w in recwarn if "zero-element" in str(w.message)] == []
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 2}', "{}"])
def test_a_family_map_that_is_absent_damaged_or_of_another_release_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "polyclinic.json").write_text(text)
    assert "polyclinic.json" in refusal(lambda: read_families(tmp_path))


# Names


def test_the_path_of_a_folder_is_that_folder(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["nothing", "/no/where", "./no/where", "../nothing", "~/model", "a/b/c"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused_without_asking_the_hub(name: str) -> None:
    assert "no such folder" in refusal(lambda: resolve(name))
    assert "hub id" in refusal(lambda: resolve(name))


def test_a_hub_id_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "hub" in refusal(lambda: resolve("polyclinic-tests/there-is-no-such-model"))
