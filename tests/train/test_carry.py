"""What a trained checkpoint carries: the template, end token and settings of its training, whatever its parent's."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import small
from polyclinic.corpus import starter
from polyclinic.corpus.pack.pack import Specials, encode, load_tokenizer
from polyclinic.errors import CheckpointError
from polyclinic.progress import Silent
from polyclinic.prompts import CHAT_TEMPLATE, segments
from polyclinic.recipe import MoeTrainingSection, ScratchSection
from polyclinic.runs import read_json, write_json
from polyclinic.train import run
from polyclinic.train.base import PAD

LOOP: dict[str, Any] = {"steps": 1, "batch_packs": 2, "threads": 1}
PARENTS = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes one away."""
    values = {**(read_json(path) if path.exists() else {}), **changes}
    write_json(path, {k: v for k, v in values.items() if v is not None})


@pytest.fixture(scope="module")
def base(vocabulary: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    shape = {"hidden_size": 32, "intermediate_size": 40, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
    section = ScratchSection(**shape, **LOOP)
    run.train_base(section, vocabulary, packed, small.PACK_TOKENS, folder, 0, Silent())
    return folder


@pytest.fixture(scope="module")
def upcycled(mixtures: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of a parent that was talked to in another way, ended elsewhere and could not pad."""
    folder = Path(shutil.copytree(mixtures["qwen2"], tmp_path_factory.mktemp("upcycled") / "m"))
    (folder / "chat_template.jinja").write_text(PARENTS)
    edit(folder / "tokenizer_config.json", chat_template=PARENTS, split_special_tokens=True, pad_token=None)
    edit(folder / "config.json", use_cache=False, eos_token_id=7, pad_token_id=None)
    edit(folder / "generation_config.json", eos_token_id=[7, 8], do_sample=True, temperature=0.6)
    return folder


@pytest.fixture(scope="module")
def trained(upcycled: Path, vocabulary: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    (root / "out").mkdir()
    packs = small.packs(root / "packs", upcycled)
    run.train_mixture(MoeTrainingSection(**LOOP), upcycled, packs, root / "out", 0, Silent())
    return root / "out"


@pytest.fixture(params=["base", "trained"])
def carried(request: pytest.FixtureRequest) -> tuple[Path, Specials]:
    folder = request.getfixturevalue(request.param)
    return folder, Specials(0, 1) if request.param == "base" else Specials(0, 0)


def test_config_generation_and_tokenizer_end_and_pad_alike(carried: tuple[Path, Specials]) -> None:
    folder, specials = carried
    assert load_tokenizer(folder)[1] == specials
    stock = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert (stock.eos_token_id, stock.pad_token_id) == specials
    for name in ("config.json", "generation_config.json"):
        written = read_json(folder / name)
        assert (written["eos_token_id"], written["pad_token_id"], written["use_cache"]) == (*specials, True)
    for loaded in (AutoConfig.from_pretrained(folder), GenerationConfig.from_pretrained(folder)):
        assert (loaded.eos_token_id, loaded.pad_token_id, loaded.use_cache) == (*specials, True)


def test_the_template_is_the_one_of_training_and_in_one_place(carried: tuple[Path, Specials]) -> None:
    folder, _ = carried
    assert (folder / "chat_template.jinja").read_text("utf-8") == CHAT_TEMPLATE
    assert not {"chat_template", "split_special_tokens"} & set(read_json(folder / "tokenizer_config.json"))
    assert AutoTokenizer.from_pretrained(folder, local_files_only=True).chat_template == CHAT_TEMPLATE


def test_reloaded_it_says_what_packs_hold_in_fifty_languages(carried: tuple[Path, Specials]) -> None:
    folder, specials = carried
    stock = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ours, _ = load_tokenizer(folder)
    languages = set()
    for document in starter.documents():
        messages = [turn._asdict() for turn in document.turns]
        text = "".join(piece.text + stock.eos_token * piece.ends for piece in segments(document.turns))
        assert stock.apply_chat_template(messages, tokenize=False).encode() == text.encode()
        ids = stock.apply_chat_template(messages, return_dict=False)
        assert ids == encode(document, ours, specials.end, "all")[0]
        languages.add(document.language)
    assert len(languages) == 50


def test_generation_stops_at_the_end_token_of_training(carried: tuple[Path, Specials]) -> None:
    folder, specials = carried
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():  # a head that says nothing but the end token
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    out = model.generate(torch.tensor([[5, 6]]), attention_mask=torch.ones(1, 2), max_new_tokens=3, do_sample=False)
    assert out[0].tolist() == [5, 6, specials.end]


def test_the_vocabulary_travels_byte_for_byte(base: Path, trained: Path, vocabulary: Path, upcycled: Path) -> None:
    for folder, source in ((base, vocabulary), (trained, upcycled)):
        assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert "local_files_only" not in (base / "tokenizer_config.json").read_text("utf-8")


def test_other_generation_settings_of_the_parent_stay(trained: Path) -> None:
    written = read_json(trained / "generation_config.json")
    assert (written["do_sample"], written["temperature"]) == (True, 0.6)


def test_what_the_built_config_says_is_still_said_under_its_names(upcycled: Path, trained: Path) -> None:
    before, after = (json.loads((f / "config.json").read_text("utf-8")) for f in (upcycled, trained))
    changed = {key for key in before if before[key] != after.get(key)}
    assert changed == {"use_cache", "eos_token_id"}
    assert after["num_experts"] == 7
    assert "rope_theta" in after


def test_an_upcycled_checkpoint_that_was_not_trained_keeps_its_parents_template(
    vocabulary: Path, tmp_path: Path
) -> None:
    dense = small.dense(tmp_path / "dense", vocabulary)
    (dense / "chat_template.jinja").write_text(PARENTS)
    built = small.mixture(tmp_path / "mixture", dense)
    assert (built / "chat_template.jinja").read_text() == PARENTS


def test_packs_with_another_end_token_are_refused(upcycled: Path, packed: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(upcycled, tmp_path / "m"))
    edit(other / "tokenizer_config.json", eos_token=PAD)
    packs = small.packs(tmp_path / "packs", upcycled)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="pack again"):
        run.train_mixture(MoeTrainingSection(**LOOP), other, packs, tmp_path / "out", 0, Silent())
