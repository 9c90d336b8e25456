"""A training plan against tensors that are there, operations that are counted, and sums that must close."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from polyclinic.moe import attach as routed
from polyclinic.recipe import MoeTrainingSection
from polyclinic.train import loss
from polyclinic.train import memory as sizes_of
from polyclinic.train.loss import head_gives_losses
from polyclinic.train.memory import Shape, memory, trained_parameters
from polyclinic.train.plan import Hardware, Plan, lengthened, plan, seconds_per_token, shared, work_of
from polyclinic.train.plan_lines import advice, as_json, lines
from polyclinic.train.stop import checkpoint_bytes

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "training_memory.py"))
made, settings_of = BENCH["made"], BENCH["settings_of"]
TINY = BENCH["TINY"]
OTHER = BENCH["Sizes"](96, 200, 5, 6, 3, 300, 1, 160)
PACK = 96
SHAPE = Shape(896, 4864, 24, 2, 14, 2, 64, 151936, True, 7, 2, False, 0, False, 650_940_288, 520_195_968)


def section(**values: Any) -> MoeTrainingSection:
    return MoeTrainingSection(**{"steps": 10, **values})


def planned(shape: Shape = SHAPE, hardware: Hardware | None = None, pack_tokens: int = 4096, **values: Any) -> Plan:
    return plan(shape, section(**values), pack_tokens, hardware or Hardware())


# Memory, against tensors


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("sizes", [TINY, OTHER], ids=["tiny", "other"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "mixture"])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_what_layers_keep_is_what_a_forward_saves(kind: str, sparse: bool, sizes: Any, precision: str) -> None:
    what = made(kind, sizes, sparse=sparse)
    for again in (False, True):
        chosen = settings_of(sizes, precision, again)
        measured = BENCH["kept_bytes"](what, chosen)
        assert BENCH["planned_kept_bytes"](what, chosen) == pytest.approx(measured, rel=0.01 if not again else 0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "upcycle",
    [
        {"shared_expert": "copy"},
        {"norm_topk_prob": False},
        {"top_k": 4, "last_layers": 4},
        {"families": "apollo12", "layers": [1]},
    ],
    ids=str,
)
def test_every_choice_of_the_mixture_is_in_it(upcycle: dict[str, Any], precision: str) -> None:
    what, chosen = made("qwen2", TINY, **upcycle), settings_of(TINY, precision, again=False)
    assert BENCH["planned_kept_bytes"](what, chosen) == pytest.approx(BENCH["kept_bytes"](what, chosen), rel=0.01)


@pytest.mark.parametrize(
    ("piece", "hidden", "copies"),
    [(1 << 17, 8, 3 << 17), (1 << 30, 8, 3 * 4 * 1024 * 512), (1 << 16, 256, 2 * 4 * 1024 * 256)],
    ids=["pieces", "whole", "wide"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_head_takes_three_copies_of_a_piece_or_the_sums_of_its_gradients(
    piece: int, hidden: int, copies: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (loss, sizes_of):
        monkeypatch.setattr(module, "PIECE_BYTES", piece)
    sizes = BENCH["Sizes"](hidden, 8, 3, 2, 2, 1024, 1, 512)
    shape = made("qwen3", sizes).shape
    measured, word = BENCH["head_bytes"](sizes, shape, settings_of(sizes, precision, again=False))
    gradient = 4 * sizes.vocabulary * sizes.hidden
    halves = precision == "bf16"
    assert word == copies
    assert word == pytest.approx(measured - gradient - (gradient // 2 if halves else 0), rel=0.25)
    several = BENCH["logit_bytes"](shape, settings_of(sizes, precision, again=False, accumulate=2), 512)
    assert several - word == (0 if piece == 1 << 30 else gradient)


@pytest.mark.parametrize(("again", "accumulate", "over"), [(False, 2, 1.10), (False, 1, 1.25), (True, 2, 1.20)])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_no_step_takes_more_than_the_plan_and_none_much_less(
    kind: str, again: bool, accumulate: int, over: float
) -> None:
    what, chosen = made(kind, TINY), settings_of(TINY, "fp32", again, accumulate)
    measured = BENCH["step_bytes"](what, chosen)
    total = memory(what.shape, chosen, PACK, what.shape.parameters).total
    assert measured <= 1.02 * total  # of a tiny model, scalars and permutations count
    assert total <= over * measured


def test_the_parts_of_a_shape_are_those_of_its_model() -> None:
    for kind in ("qwen2", "qwen3"):
        model, shape, _ = made(kind, TINY, layers=[1, 3])
        named = {name: p.numel() for name, p in model.named_parameters()}
        assert shape.parameters == sum(named.values())
        assert shape.of_experts == sum(n for name, n in named.items() if ".experts." in name)
        assert shape.routers == sum(n for name, n in named.items() if name.endswith("mlp.gate.weight"))
        assert shape.words == model.get_output_embeddings().weight.numel()
        layer = sum(p.numel() for p in model.get_decoder().layers[3].parameters())
        assert shape.widest_layer == pytest.approx(layer, rel=0.01)
        fixed = memory(shape, section(), PACK, shape.parameters)
        assert planned(shape, pack_tokens=PACK).checkpoint == checkpoint_bytes(model) == fixed.weights + fixed.adamw


def test_frozen_routers_have_no_gradients_and_no_states() -> None:
    model, shape, _ = made("qwen3", TINY)
    for layer in routed.sparse_layers(model).values():
        layer.mlp.gate.weight.requires_grad_(False)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained_parameters(shape, "language") == trained < trained_parameters(shape, "hybrid")
    assert planned(shape, pack_tokens=PACK, routing="language").checkpoint == checkpoint_bytes(model)


def test_ddp_divides_nothing_and_fsdp_all_but_the_batch() -> None:
    one = memory(SHAPE, section(), 4096, SHAPE.parameters)
    ddp = memory(SHAPE, section(), 4096, SHAPE.parameters, "ddp", 64)
    fsdp = memory(SHAPE, section(), 4096, SHAPE.parameters, "fsdp", 64)
    assert one.weights + one.gradients + one.adamw == 16 * SHAPE.parameters
    assert ddp.total == one.total + 4 * SHAPE.parameters
    assert 64 * (fsdp.weights + fsdp.gradients + fsdp.adamw) == 16 * SHAPE.parameters
    assert (fsdp.activations, fsdp.logits) == (one.activations, one.logits)
    layer = 2 * 896 * (14 + 2) * 64 + 7 * (3 * 896 * 4864 + 896)
    assert fsdp.copies == 4 * (3 * layer + 2 * 151936 * 896)
    halves = memory(SHAPE, section(precision="bf16"), 4096, SHAPE.parameters)
    assert halves.copies == 2 * (SHAPE.parameters - 2 * 7 * 3 * 896 * 4864)


# Arithmetic and time


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@pytest.mark.parametrize("again", [False, True])
def test_operations_are_those_that_torch_counts(kind: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    what, chosen = made(kind, TINY), settings_of(TINY, "fp32", again)
    what.model.set_attn_implementation("eager")  # the counter knows plain products only
    what.model.set_experts_implementation("eager")
    what.batch["position_ids"] = torch.arange(PACK).expand(2, -1)
    BENCH["_again"](what.model, chosen)
    with FlopCounterMode(display=False) as counter, head_gives_losses(what.model, what.batch["input_ids"]):
        what.model(**what.batch, use_cache=False).logits.sum().backward()
    counted = counter.get_total_flops() / what.batch["input_ids"].numel()
    # Recomputation stops before the last product of a layer, whose result nothing needs.
    assert work_of(what.shape, chosen, PACK).total == pytest.approx(counted, rel=0.01 if not again else 0.1)
    assert work_of(what.shape, chosen, PACK).total > 0.99 * counted


def test_a_head_in_pieces_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = work_of(replace(SHAPE, vocabulary=1000), section(batch_packs=1), 4096)
    monkeypatch.setattr(sizes_of, "PIECE_BYTES", 4 * 1000 * 2048)  # two of them
    pieces = work_of(replace(SHAPE, vocabulary=1000), section(batch_packs=1), 4096)
    assert pieces.total - whole.total == 2 * 896 * 1000


def test_a_table_of_embeddings_that_is_no_head_costs_no_operations() -> None:
    apart = replace(SHAPE, tied=False, parameters=SHAPE.parameters + SHAPE.words, active=SHAPE.active + SHAPE.words)
    assert work_of(apart, section(), 4096) == work_of(SHAPE, section(), 4096)
    of_both = [memory(shape, section(precision="bf16"), 4096, shape.parameters) for shape in (SHAPE, apart)]
    assert of_both[1].copies == of_both[0].copies
    assert of_both[1].weights - of_both[0].weights == 4 * SHAPE.words


def test_hours_follow_from_operations_peak_and_share() -> None:
    work = work_of(SHAPE, section(), 4096)
    row = planned(steps=26800, batch_packs=32, hardware=Hardware((1,))).rows[0]
    assert row.tokens == 26800 * 32 * 4096
    assert row.hours == pytest.approx(row.tokens * work.total / (67e12 * 0.4) / 3600)
    assert row.hours == pytest.approx(row.hours_per_billion * row.tokens / 1e9)
    given_peak = Hardware((1,), tflops=100.0, mfu=0.5)
    assert seconds_per_token(work, "bf16", given_peak) == pytest.approx(work.total / 50e12)
    apart = seconds_per_token(work, "bf16", Hardware(mfu=1.0))
    assert apart == pytest.approx(work.products / 989e12 + work.experts / 67e12)
    assert work.experts == 6 * 2 * 2 * 3 * 896 * 4864


def test_length_is_that_of_the_recipe() -> None:
    by_steps, by_tokens = planned(batch_packs=2, accumulate=3), planned(steps=None, tokens=10**9)
    assert [row.steps for row in by_steps.rows] == [10] * 5
    # A step of 6 packs is one of 8 where 8 GPUs share it, of 64 where 64 do.
    assert [row.step_tokens for row in by_steps.rows] == [packs * 4096 for packs in (6, 8, 8, 64, 64)]
    assert [row.steps for row in by_tokens.rows] == [-(-(10**9) // (packs * 4096)) for packs in (4, 8, 8, 64, 64)]
    epochs = planned(steps=None, epochs=2.0)
    assert {(row.steps, row.tokens, row.hours) for row in epochs.rows} == {(None, None, None)}
    assert "--tokens N gives" in " ".join(as_json(epochs, "x")["assumptions"])
    longer = lengthened(epochs.settings, 10**6)
    assert (longer.tokens, longer.epochs, longer.steps) == (10**6, None, None)


@settings(deadline=None, max_examples=200)
@given(batch=st.integers(1, 40), accumulate=st.integers(1, 40), gpus=st.integers(1, 64))
def test_a_step_is_shared_out_in_the_largest_batches_that_go(batch: int, accumulate: int, gpus: int) -> None:
    given = planned(batch_packs=batch, accumulate=accumulate).settings
    found, packs = shared(given, gpus), batch * accumulate
    assert found.accumulate % gpus == 0
    assert found.batch_packs <= batch
    if packs % gpus == 0:
        assert found.batch_packs * found.accumulate == packs
        assert not [n for n in range(found.batch_packs + 1, batch + 1) if packs % (n * gpus) == 0]
    else:
        assert packs < found.batch_packs * found.accumulate < packs + gpus


# What to change, and the text


@settings(deadline=None, max_examples=100)
@given(packs=st.sampled_from([1, 4, 6, 32]), room=st.floats(5, 600), again=st.booleans(), layers=st.integers(2, 40))
def test_advice_fits_and_asks_for_no_more_than_it_must(packs: int, room: float, again: bool, layers: int) -> None:
    hardware = Hardware((1, 8), gpu_memory=room)
    what = planned(replace(SHAPE, layers=layers), hardware, batch_packs=packs, gradient_checkpointing=again)
    found = advice(what)
    assert (not found) is what.rows[0].fits
    if not found or not found[0].startswith("one GPU suffices with "):
        return
    keys = dict(word.removeprefix("train.").split("=") for word in found[0].split() if "=" in word)
    changed = {k: v == "true" if k == "gradient_checkpointing" else int(v) for k, v in keys.items()}

    def fits(size: int, checkpointing: bool) -> bool:
        chosen = {"batch_packs": size, "accumulate": packs // size, "gradient_checkpointing": checkpointing}
        return planned(what.shape, hardware, **chosen).rows[0].fits

    size, checkpointing = changed.get("batch_packs", packs), changed.get("gradient_checkpointing", again)
    assert size * changed.get("accumulate", 1) == packs
    assert fits(size, checkpointing)
    divisors = [n for n in range(1, packs + 1) if packs % n == 0]
    assert not any(fits(n, checkpointing) for n in divisors if n > size)
    if checkpointing and not again:
        assert not any(fits(n, False) for n in divisors)


def test_where_one_gpu_never_suffices_several_are_named() -> None:
    large = replace(SHAPE, layers=28, hidden=3584, inner=18944, heads=28, kv_heads=4, head=128, tied=False)
    large = replace(large, parameters=10_059_904_512, active=8_023_045_632)
    found = advice(planned(large, batch_packs=32))
    assert found[0].startswith("one GPU does not suffice: 160.96 GB of weights, gradients and AdamW")
    assert found[1].startswith("8 GPUs suffice with train.batch_packs=")
    assert "train.parallel=fsdp" in found[1]
    few = advice(planned(large, Hardware((1, 2), gpu_memory=24)))
    assert few[1].startswith("nor do the others")


def test_the_text_says_what_the_rows_hold() -> None:
    what = planned(batch_packs=32, precision="bf16", steps=None, epochs=1.0)
    shown = lines(what, "somewhere")
    assert shown[0] == "config       somewhere"
    table = [line.split() for line in shown[shown.index("") + 2 :][: len(what.rows)]]
    for cells, row in zip(table, what.rows, strict=True):
        assert cells[0] == str(row.gpus)
        assert cells[1] == ("alone" if row.gpus == 1 else row.parallel)
        assert float(cells[8].replace(",", "")) == pytest.approx(row.memory.total / 1e9, abs=0.005)
        assert float(cells[6].replace(",", "")) == pytest.approx(row.memory.activations / 1e9, abs=0.005)
        assert cells[9] == ("yes" if row.fits else "no")
        assert cells[10] == f"{row.batch_packs}x{row.accumulate // row.gpus}"
        assert cells[11] == f"{row.step_tokens:,}"
        assert cells[12:14] == ["-", "-"]
    assert max(map(len, shown)) <= 110
    assert any("experts stay in fp32" in line for line in shown)
