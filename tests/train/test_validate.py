"""Held-out loss while training: its formula, no trace in the weights, and the best step kept and published."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file

import small
from polyclinic.corpus.pack import pack as packing
from polyclinic.errors import DataError
from polyclinic.families import load_preset
from polyclinic.moe import attach as routed
from polyclinic.moe.checkpoint import load_model
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection
from polyclinic.runs import CHECKPOINTS, read_json
from polyclinic.train import checkpoint, run, validate
from polyclinic.train.packs import Packs
from polyclinic.train.report import read_log

# A high rate and little text: the loss on other text rises again.
SECTION = MoeTrainingSection(
    steps=12,
    batch_packs=2,
    learning_rate=8e-2,
    schedule="constant",
    save_every=7,
    log_every=3,
    threads=1,
    validate_every=2,
    keep=1,
)


class Stopped(Exception):
    """The test's own interruption."""


class Listener(Silent):
    def __init__(self, stop_at: int = -1) -> None:
        self.said: list[str] = []
        self._stop_at = stop_at

    def advance(self, done: int, total: int, note: str = "") -> None:
        if done == self._stop_at:
            raise Stopped

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def dropping(mixtures: dict[str, Path]) -> Path:
    """A mixture that drops attention in training, so that each step draws random numbers."""
    folder = mixtures["qwen3"]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    made = folder.with_name("qwen3-dropping")
    made.mkdir()
    for path in folder.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    (made / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.2}), "utf-8")
    return made


@pytest.fixture(scope="module")
def packed(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two packs, soon known by heart."""
    return small.packs(tmp_path_factory.mktemp("few") / "packs", vocabulary, per_language=1)


@pytest.fixture(scope="module")
def aside(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs of other text, in three of the four languages."""
    folder = tmp_path_factory.mktemp("aside")
    tokenizer, specials = packing.load_tokenizer(vocabulary)
    texts = [d for d in small.documents(5, "validation", seed=7) if d.language != "zh"]
    options = packing.Packing(small.PACK_TOKENS, "all", seed=0)
    packing.pack(texts, tokenizer, specials, load_preset("balanced").expert_of, folder, options, Silent())
    return folder


def train(mixture: Path, packed: Path, folder: Path, aside: Path | None, stop_at: int = -1, **changes: Any) -> Any:
    folder.mkdir(exist_ok=True)
    section, listener = SECTION.model_copy(update=changes), Listener(stop_at)
    facts = run.train_mixture(section, mixture, packed, folder, 0, listener, aside)
    return facts, listener.said


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def validations(folder: Path) -> dict[int, Any]:
    return {line["step"]: line["validation"] for line in read_log(folder) if "validation" in line}


@pytest.mark.parametrize("batch_packs", [1, 3])
def test_the_loss_of_a_language_is_the_mean_of_its_tokens_under_plain_routing(
    dropping: Path, aside: Path, batch_packs: int
) -> None:
    """The oracle walks document by document through the stock model, which knows no packs and no families."""
    stock, model = load_model(dropping).eval(), load_model(dropping).train()
    routed.attach(model, routed.Routing.HYBRID)
    packs = Packs(aside)
    rows = validate.losses(model, packs, batch_packs)
    assert model.training
    sums: dict[str, list[float]] = {}
    for pack in packs:
        starts = [i for i, position in enumerate(pack["position_ids"]) if position == 0]
        for first, last in zip(starts, [*starts[1:], len(pack["input_ids"])], strict=True):
            language = int(pack["language_ids"][first])
            if language < 0:
                continue
            tokens = torch.from_numpy(pack["input_ids"][first:last].astype("int64"))[None]
            with torch.no_grad():
                logits = stock(tokens).logits[0, :-1]
            sums.setdefault(packs.languages[language], []).extend(
                F.cross_entropy(logits, tokens[0, 1:], reduction="none").tolist()
            )
    assert set(rows) == {"ar", "en", "th"}
    for code, values in sums.items():
        assert rows[code] == {"loss": pytest.approx(sum(values) / len(values), rel=1e-4), "tokens": len(values)}


def test_the_shares_of_several_processes_are_all_packs_once_in_as_many_batches(aside: Path) -> None:
    packs = Packs(aside)
    for size, processes in ((1, 2), (2, 3), (3, 1), (2, 5)):
        shares = [list(validate._batches(packs, size, process, processes)) for process in range(processes)]
        assert len({len(share) for share in shares}) == 1
        counted = [b["pack"][(b["labels"] != packing.IGNORED).any(1)].tolist() for share in shares for b in share]
        assert sorted(pack for batch in counted for pack in batch) == list(range(len(packs)))


def test_validation_leaves_no_trace_in_the_weights(dropping: Path, packed: Path, aside: Path, tmp_path: Path) -> None:
    train(dropping, packed, tmp_path / "with", aside)
    train(dropping, packed, tmp_path / "without", None, validate_every=None)
    assert weights(tmp_path / "with") == weights(tmp_path / "without")
    seen = validations(tmp_path / "with")
    assert list(seen) == [2, 4, 6, 8, 10, 12]
    for one in seen.values():
        assert one["macro"] == pytest.approx(sum(row["loss"] for row in one["languages"].values()) / 3)
    assert validations(tmp_path / "without") == {}


@pytest.fixture(scope="module")
def kept(dropping: Path, packed: Path, aside: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    facts, _ = train(dropping, packed, folder, aside, keep_best=True)
    (folder / "facts.json").write_text(json.dumps(facts["best"]))
    return folder


def test_the_best_step_outlives_the_newest_and_is_what_is_published(kept: Path) -> None:
    macros = {step: one["macro"] for step, one in validations(kept).items()}
    best = min(macros, key=lambda step: macros[step])
    assert 2 < best < 12, macros  # the test has something to find
    assert best % SECTION.save_every
    expected = {"step": best, "macro": macros[best]}
    assert read_json(kept / CHECKPOINTS / checkpoint.BEST) == expected
    assert read_json(kept / "facts.json") == expected
    names = {path.name for path in (kept / CHECKPOINTS).glob("step-*")}
    assert names == {f"step-{best:08d}", "step-00000012"}
    held = load_model(kept)
    saved = load_file(kept / CHECKPOINTS / f"step-{best:08d}" / "model-00000.safetensors")
    state = held.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in saved.items())
    last = load_file(kept / CHECKPOINTS / "step-00000012" / "model-00000.safetensors")
    assert not all(tensor.equal(state[name]) for name, tensor in last.items())


@pytest.mark.parametrize("step", [4, 7, 8, 10, 12])
def test_a_run_that_was_stopped_chooses_the_same_best(
    dropping: Path, packed: Path, aside: Path, kept: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(Stopped):
        train(dropping, packed, tmp_path, aside, step, keep_best=True)
    facts, _ = train(dropping, packed, tmp_path, aside, keep_best=True)
    assert facts["best"] == read_json(kept / "facts.json")
    assert weights(tmp_path) == weights(kept)


def test_a_run_that_died_between_its_checkpoint_and_the_note_of_the_best_chooses_the_same(
    dropping: Path, packed: Path, aside: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = read_json(kept / "facts.json")["step"]

    def died(self: validate.Validation) -> None:
        if self.best is not None and self.best.step == best:
            raise Stopped
        stock(self)

    stock = validate.Validation._note_best
    with monkeypatch.context() as patch:
        patch.setattr(validate.Validation, "_note_best", died)
        with pytest.raises(Stopped):
            train(dropping, packed, tmp_path, aside, keep_best=True)
    assert (tmp_path / CHECKPOINTS / f"step-{best:08d}").is_dir()
    assert read_json(tmp_path / CHECKPOINTS / checkpoint.BEST)["step"] < best
    facts, _ = train(dropping, packed, tmp_path, aside, keep_best=True)
    assert facts["best"] == read_json(kept / "facts.json")
    assert weights(tmp_path) == weights(kept)


def test_a_best_checkpoint_that_is_damaged_is_said_and_passed_over(
    dropping: Path, packed: Path, aside: Path, kept: Path, tmp_path: Path
) -> None:
    best = read_json(kept / "facts.json")["step"]
    shutil.copytree(kept / CHECKPOINTS, tmp_path / CHECKPOINTS)
    shutil.copyfile(kept / "log.jsonl", tmp_path / "log.jsonl")
    (tmp_path / CHECKPOINTS / f"step-{best:08d}" / "model-00000.safetensors").write_bytes(b"")
    facts, said = train(dropping, packed, tmp_path, aside, keep_best=True)
    assert any(f"the best step, {best}, is not whole" in line for line in said)
    assert facts["best"]["step"] == SECTION.steps
    assert weights(tmp_path) != weights(kept)


def test_a_section_that_cannot_be_meant_is_refused(dropping: Path, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="keep_best needs validate_every"):
        MoeTrainingSection(steps=1, keep_best=True)
    with pytest.raises(Exception, match=r"give corpus\.validation a share"):
        small.recipe(train={"steps": 1, "validate_every": 1})
    with pytest.raises(DataError, match="no validation text"):
        train(dropping, packed, tmp_path / "run", None)
