"""The loop: whatever stops a training, running it again ends with the very same weights and log."""

import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import small
from polyclinic.errors import CheckpointError, PolyclinicError
from polyclinic.moe.attach import is_attached
from polyclinic.moe.checkpoint import load_model, read_families
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection, ScratchSection, TrainingSection
from polyclinic.runs import CHECKPOINTS, damaged, read_json, write_json
from polyclinic.train import run
from polyclinic.train.loop import fit
from polyclinic.train.packs import Packs, PackSampler
from polyclinic.train.report import read_log

STEPS, KILLED_AT, LAST_SAVED = 15, 12, 8
# Lines and checkpoints fall on different steps: the log must not lose what lies between them.
SECTION = MoeTrainingSection(
    steps=STEPS, batch_packs=2, learning_rate=5e-3, warmup_steps=3, save_every=4, log_every=3, threads=1
)
LOGGED = [3, 4, 6, 8, 9, 12, 15]

KILL_ITSELF = """
import os, signal, sys
from pathlib import Path
from polyclinic.progress import Silent
from polyclinic.recipe import MoeTrainingSection
from polyclinic.train.run import train_mixture

class Killer(Silent):
    def advance(self, done, total, note=""):
        if done == int(sys.argv[5]):
            os.kill(os.getpid(), signal.SIGKILL)

section = MoeTrainingSection.model_validate_json(sys.argv[1])
train_mixture(section, *map(Path, sys.argv[2:5]), 0, Killer())
"""


class Stopped(Exception):
    """The test's own interruption."""


class Listener(Silent):
    """Keeps what is said; stops the training at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.said: list[str] = []
        self._stop_at = stop_at

    def advance(self, done: int, total: int, note: str = "") -> None:
        if done == self._stop_at:
            raise Stopped

    def say(self, message: str) -> None:
        self.said.append(message)


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def log_of(folder: Path) -> list[dict[str, Any]]:
    """Return the log with every float in hexadecimal, without what the machine did."""
    lines = read_log(folder)
    assert all(line.pop("machine")["tokens_per_second"] > 0 for line in lines)
    return json.loads(json.dumps(lines), parse_float=lambda text: float(text).hex())


def train(mixture: Path, packed: Path, folder: Path, listener: Silent | None = None, **changes: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    section = SECTION.model_copy(update=changes)
    return run.train_mixture(section, mixture, packed, folder, 0, listener or Silent())


def stopped(mixture: Path, packed: Path, folder: Path, step: int) -> None:
    with pytest.raises(Stopped):
        train(mixture, packed, folder, Listener(step))


@pytest.fixture(scope="module")
def mixture(mixtures: dict[str, Path]) -> Path:
    return mixtures["qwen3"]


@pytest.fixture(scope="module")
def whole(mixture: Path, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert not train(mixture, packed, folder)["resumed"]
    return folder


def test_a_killed_run_ends_with_the_same_weights_and_log(
    mixture: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    assert len(set(read_families(mixture)["expert_of"].values())) >= 3
    paths = map(str, (mixture, packed, tmp_path, KILLED_AT))
    command = [sys.executable, "-c", KILL_ITSELF, SECTION.model_dump_json(), *paths]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert {p.name for p in (tmp_path / CHECKPOINTS).glob("step-*")} == {"step-00000004", "step-00000008"}
    assert read_log(tmp_path)[-1]["step"] == KILLED_AT > LAST_SAVED
    listener = Listener()
    assert train(mixture, packed, tmp_path, listener)["resumed"]
    assert listener.said == ["resuming from step-00000008"]
    assert weights(tmp_path) == weights(whole)
    assert log_of(tmp_path) == log_of(whole)


@pytest.mark.parametrize("step", [LOGGED[0], LAST_SAVED, STEPS])
def test_where_a_run_was_stopped_cannot_be_seen(
    mixture: Path, packed: Path, whole: Path, tmp_path: Path, step: int
) -> None:
    stopped(mixture, packed, tmp_path, step)
    train(mixture, packed, tmp_path)
    assert weights(tmp_path) == weights(whole)
    assert log_of(tmp_path) == log_of(whole)


def test_a_run_may_be_stopped_again_and_again(mixture: Path, packed: Path, whole: Path, tmp_path: Path) -> None:
    for step in (6, 9, 9, 15):
        stopped(mixture, packed, tmp_path, step)
    train(mixture, packed, tmp_path)
    assert weights(tmp_path) == weights(whole)
    assert log_of(tmp_path) == log_of(whole)


def test_a_run_stopped_after_its_last_checkpoint_is_only_saved(
    mixture: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / CHECKPOINTS, tmp_path / CHECKPOINTS)
    shutil.copyfile(whole / "log.jsonl", tmp_path / "log.jsonl")
    listener = Listener()
    train(mixture, packed, tmp_path, listener)
    assert listener.said == [f"resuming from step-{STEPS:08d}"]
    assert weights(tmp_path) == weights(whole)
    assert log_of(tmp_path) == log_of(whole)


def test_a_damaged_checkpoint_is_named_and_the_older_one_taken(
    mixture: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    stopped(mixture, packed, tmp_path, KILLED_AT)
    path = tmp_path / CHECKPOINTS / "step-00000008" / "optimizer-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    listener = Listener()
    train(mixture, packed, tmp_path, listener)
    assert listener.said == ["checkpoint step-00000008 is damaged, falling back", "resuming from step-00000004"]
    assert weights(tmp_path) == weights(whole)


def test_half_a_line_in_the_log_is_cut_off(mixture: Path, packed: Path, whole: Path, tmp_path: Path) -> None:
    stopped(mixture, packed, tmp_path, KILLED_AT)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')
    train(mixture, packed, tmp_path)
    assert log_of(tmp_path) == log_of(whole)


def test_a_mixture_with_biases_resumes_as_well(mixtures: dict[str, Path], packed: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(mixtures["qwen2"], packed, whole)
    cut.mkdir()
    stopped(mixtures["qwen2"], packed, cut, KILLED_AT)
    train(mixtures["qwen2"], packed, cut)
    assert weights(cut) == weights(whole)


def test_a_base_resumes_as_well(vocabulary: Path, packed: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
    section = ScratchSection(
        **SECTION.model_dump(exclude=set(MoeTrainingSection.model_fields) - set(TrainingSection.model_fields)), **sizes
    )
    folders = [tmp_path / "whole", tmp_path / "cut"]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(Stopped):
        run.train_base(section, vocabulary, packed, 48, folders[1], 0, Listener(KILLED_AT))
    for folder in folders:
        run.train_base(section, vocabulary, packed, 48, folder, 0, Silent())
    assert weights(folders[0]) == weights(folders[1])
    assert log_of(folders[0]) == log_of(folders[1])


def test_the_log_has_every_interval_checkpoint_and_last_step(whole: Path) -> None:
    assert [line["step"] for line in read_log(whole)] == LOGGED


def test_a_run_shorter_than_a_log_interval_still_logs(mixture: Path, packed: Path, tmp_path: Path) -> None:
    train(mixture, packed, tmp_path, steps=2, save_every=50, log_every=10)
    assert [line["step"] for line in read_log(tmp_path)] == [2]


def test_language_losses_of_the_log_add_up_to_its_loss(mixture: Path, packed: Path, tmp_path: Path) -> None:
    """With a line for each step, the mean over tokens is the loss of that step's batch."""
    train(mixture, packed, tmp_path, steps=4, log_every=1)
    for line in read_log(tmp_path):
        rows = line["languages"].values()
        total = sum(r["loss"] * r["tokens"] for r in rows) / sum(r["tokens"] for r in rows)
        assert line["loss"] == pytest.approx(total, rel=1e-6)
        assert set(line["languages"]) <= set(small.LANGUAGES)


def factor(schedule: str, step: int, warmup: int, steps: int) -> float:
    """Return the share of the peak rate after `step` steps."""
    if step < warmup:
        return step / warmup
    done = (step - warmup) / (steps - warmup)
    shapes = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
    return shapes[schedule]


@pytest.mark.parametrize(("schedule", "warmup"), [("cosine", 3), ("cosine", 0), ("linear", 3), ("constant", 3)])
def test_the_rate_follows_its_formula_to_the_last_step(
    mixture: Path, packed: Path, tmp_path: Path, schedule: str, warmup: int
) -> None:
    train(mixture, packed, tmp_path, steps=8, log_every=1, schedule=schedule, warmup_steps=warmup)
    rates = [line["learning_rate"] for line in read_log(tmp_path)]
    peak = SECTION.learning_rate
    assert rates == pytest.approx([peak * factor(schedule, step, warmup, 8) for step in range(8)], rel=1e-9)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_no_number_stops_the_run_before_the_step_and_names_its_records(
    mixture: Path, packed: Path, tmp_path: Path, accumulate: int
) -> None:
    """A word whose embedding is spoiled: training goes on until a batch holds it."""
    rows, model = Packs(packed), load_model(mixture)
    order = list(PackSampler(len(rows), 6 * 2 * accumulate, 0))
    words = [set(rows[i]["input_ids"].tolist()) for i in order]
    late = next(n for n in range(len(order)) if n >= 4 * accumulate and words[n] - set().union(*words[:n]))
    word = min(words[late] - set().union(*words[:late]))
    with torch.no_grad():
        model.get_input_embeddings().weight[word] = float("nan")
        model.get_output_embeddings().weight = torch.nn.Parameter(
            torch.randn(model.get_output_embeddings().weight.shape)
        )
    batch = order[late // 2 * 2 : late // 2 * 2 + 2]
    records = rows.records(batch)
    settings = SECTION.model_copy(update={"save_every": 1, "accumulate": accumulate, "weight_decay": 0.0})
    with pytest.raises(PolyclinicError) as caught:
        fit(model, packed, settings, tmp_path, 0, Silent())
    step = late // (2 * accumulate) + 1
    assert f"the loss at step {step} is nan, in a batch of records {', '.join(records[:5])}" in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = sorted((tmp_path / CHECKPOINTS).iterdir())
    assert kept[-1].name == f"step-{step - 1:08d}"
    assert damaged(kept[-1]) is None


def test_gradients_that_are_no_numbers_stop_the_run(mixture: Path, packed: Path, tmp_path: Path) -> None:
    model = load_model(mixture)
    model.get_decoder().norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(PolyclinicError, match=r"norm of the gradients at step 1 is (inf|nan)"):
        fit(model, packed, SECTION.model_copy(update={"save_every": 1}), tmp_path, 0, Silent())
    assert not (tmp_path / CHECKPOINTS).exists()


def test_a_step_of_two_batches_is_the_step_of_one_batch_of_all_their_packs(
    mixture: Path, packed: Path, tmp_path: Path
) -> None:
    made = []
    for batch_packs, accumulate in ((4, 1), (2, 2), (1, 4)):
        folder = tmp_path / str(accumulate)
        changes = {"batch_packs": batch_packs, "accumulate": accumulate, "load_balance": 0.0, "steps": 6}
        train(mixture, packed, folder, **changes)
        made.append((read_log(folder), load_model(folder).state_dict()))
    for log, state in made[1:]:
        for line, first in zip(log, made[0][0], strict=True):
            assert line["loss"] == pytest.approx(first["loss"], rel=1e-5)
            assert line["experts"] == first["experts"]
            assert {c: v["tokens"] for c, v in line["languages"].items()} == {
                c: v["tokens"] for c, v in first["languages"].items()
            }
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, made[0][1][name], rtol=1e-3, atol=1e-4)


def test_gradient_checkpointing_changes_no_weight(mixture: Path, packed: Path, whole: Path, tmp_path: Path) -> None:
    train(mixture, packed, tmp_path, gradient_checkpointing=True)
    for name, tensor in load_model(tmp_path).state_dict().items():
        torch.testing.assert_close(tensor, load_model(whole).state_dict()[name], rtol=1e-4, atol=1e-5)


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(
    mixture: Path, packed: Path, whole: Path, tmp_path: Path
) -> None:
    train(mixture, packed, tmp_path, precision="bf16")
    made = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in made.values()} == {torch.float32}
    assert weights(tmp_path) != weights(whole)
    lines = zip(read_log(tmp_path), read_log(whole), strict=True)
    assert all(ours["loss"] == pytest.approx(theirs["loss"], rel=0.02) for ours, theirs in lines)


@pytest.mark.parametrize(
    ("length", "steps"),
    [({"tokens": 1}, 1), ({"tokens": 3 * 96}, 3), ({"tokens": 3 * 96 + 1}, 4)],
)
def test_a_length_in_tokens_is_rounded_up_to_whole_steps(
    mixture: Path, packed: Path, tmp_path: Path, length: dict[str, int], steps: int
) -> None:
    assert train(mixture, packed, tmp_path, steps=None, **length)["steps"] == steps


def test_an_epoch_sees_every_pack_once(mixture: Path, packed: Path, tmp_path: Path) -> None:
    facts = train(mixture, packed, tmp_path, steps=None, epochs=1.0, batch_packs=1)
    assert facts["steps"] == len(Packs(packed))
    seen = sum(v["tokens"] for line in read_log(tmp_path) for v in line["languages"].values())
    assert seen == sum(int((Packs(packed)[i]["labels"] != -100).sum()) for i in range(len(Packs(packed))))


@pytest.mark.parametrize("change", ["tokenizer", "families"])
def test_packs_of_another_vocabulary_or_other_families_are_refused(
    mixture: Path, packed: Path, tmp_path: Path, change: str
) -> None:
    other = Path(shutil.copytree(packed, tmp_path / "packs"))
    facts = read_json(other / "packs.json")
    if change == "tokenizer":
        facts["vocabulary"] = "0" * 64
    else:
        facts["expert_of"]["th"] = (facts["expert_of"]["th"] + 1) % 7
    write_json(other / "packs.json", facts)
    with pytest.raises(CheckpointError, match="pack again") as caught:
        train(mixture, other, tmp_path / "out")
    assert caught.value.exit_code == 4


def test_training_learns_its_packs(mixture: Path, packed: Path, tmp_path: Path) -> None:
    train(mixture, packed, tmp_path, steps=30, learning_rate=1e-2)
    log = read_log(tmp_path)
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]


def test_what_is_saved_is_a_stock_checkpoint(whole: Path, packed: Path) -> None:
    names = {p.name for p in whole.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "polyclinic.json"}
    model, info = AutoModelForCausalLM.from_pretrained(whole, output_loading_info=True, local_files_only=True)
    assert not any(info.values())
    assert "polyclinic" not in (whole / "config.json").read_text("utf-8")
    assert type(model).__module__.startswith("transformers.")
    assert read_families(whole)["trained_with"] == "hybrid"


def test_fit_gives_the_model_back_without_family_routing(mixture: Path, packed: Path, tmp_path: Path) -> None:
    model = load_model(mixture)
    facts = fit(model, packed, SECTION.model_copy(update={"steps": 1}), tmp_path, 0, Silent())
    assert not is_attached(model)
    assert facts == {"steps": 1, "tokens": 2 * small.PACK_TOKENS, "resumed": False}


def test_the_seed_and_the_routing_change_the_weights(mixture: Path, packed: Path, whole: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("seed", "topk")}
    for folder in folders.values():
        folder.mkdir()
    run.train_mixture(SECTION, mixture, packed, folders["seed"], 1, Silent())
    train(mixture, packed, folders["topk"], routing="topk")
    assert len({weights(f) for f in (whole, *folders.values())}) == 3
