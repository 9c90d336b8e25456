"""What `train plan` says of memory against tensors that are there: `python benchmarks/training_memory.py`.

Kept: bytes of all distinct storages that a forward saves for its backward, weights and their bf16 copies left out.
Step: the most bytes alive at once in the second training step, every tensor of every operation followed to its end.
Both count tensors, on the CPU, so the machine's speed and the allocator do not matter.
"""

import sys
import weakref
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from polyclinic.moe import attach as routed
from polyclinic.moe.blueprint import dense_config, moe_config
from polyclinic.recipe import MoeTrainingSection, UpcycleSection
from polyclinic.train.loss import head_gives_losses
from polyclinic.train.memory import Shape, activation_bytes, logit_bytes, memory, shape_of
from polyclinic.upcycle.build import design
from polyclinic.upcycle.forecast import forecast

MEGA = 1e6


class Sizes(NamedTuple):
    """Sizes of a dense parent and of a batch."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    packs: int
    pack_tokens: int


TINY = Sizes(64, 160, 4, 4, 2, 512, 2, 96)
SMALL = Sizes(256, 688, 6, 8, 2, 4096, 4, 512)
PAPER = Sizes(896, 4864, 24, 14, 2, 151936, 1, 512)


class Made(NamedTuple):
    """A model, its sizes, and a batch of two documents a pack."""

    model: PreTrainedModel
    shape: Shape
    batch: dict[str, Tensor]


def made(kind: str, sizes: Sizes, *, sparse: bool = True, **upcycle: Any) -> Made:
    """Return a mixture of a kind of parent, or that parent, freshly initialised."""
    raw = {
        "model_type": kind, "hidden_size": sizes.hidden, "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads,
        "vocab_size": sizes.vocabulary, "tie_word_embeddings": True, "head_dim": sizes.hidden // sizes.heads,
    }  # fmt: skip
    section = UpcycleSection(**{"families": "apollo", **upcycle})
    plan, facts = design(raw, kind, section, seed=0), forecast(raw, kind, section)
    shape = shape_of(plan.config, facts, section)
    config = moe_config(plan.config, plan.blueprint, plan.mixture) if sparse else dense_config(raw, kind)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).float().train()
    if not sparse:
        count = sum(p.numel() for p in model.parameters())
        shape = replace(shape, sparse=0, experts=1, shared=None, parameters=count, active=count)
    batch = {
        "input_ids": torch.randint(sizes.vocabulary, (sizes.packs, sizes.pack_tokens)),
        "position_ids": (torch.arange(sizes.pack_tokens) % (sizes.pack_tokens // 2)).expand(sizes.packs, -1).clone(),
    }
    if sparse:
        routed.attach(model)
        batch["family_ids"] = torch.zeros_like(batch["input_ids"])
    return Made(model, shape, batch)


def settings_of(sizes: Sizes, precision: str, again: bool, accumulate: int = 1) -> MoeTrainingSection:
    """Return the recipe's section of a measurement."""
    values = {"steps": 1, "batch_packs": sizes.packs, "precision": precision, "accumulate": accumulate}
    return MoeTrainingSection(**values, gradient_checkpointing=again)


def autocast(settings: MoeTrainingSection) -> Any:
    """Return the precision of a recipe as the loop has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16")


def kept_bytes(what: Made, settings: MoeTrainingSection) -> int:
    """Measure what a forward of the decoder saves."""
    _again(what.model, settings)
    weights = {p.untyped_storage().data_ptr() for p in what.model.parameters()}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        cast = tensor.dtype == torch.bfloat16 and tensor.grad_fn is not None and tensor.grad_fn.name() == "TBackward0"
        if not cast and tensor.untyped_storage().data_ptr() not in weights:
            seen.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast(settings):
        output = what.model.get_decoder()(**what.batch, use_cache=False)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


def planned_kept_bytes(what: Made, settings: MoeTrainingSection) -> int:
    """Return the plan's word for the same: without the boolean mask and the head's states, which the decoder drops."""
    tokens, pack_tokens = what.batch["input_ids"].numel(), what.batch["input_ids"].shape[1]
    return activation_bytes(what.shape, settings, pack_tokens) - tokens * (pack_tokens + 4 * what.shape.hidden)


class Alive(TorchDispatchMode):
    """Follows every storage from the operation that makes it to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def know(self, *tensors: Tensor) -> int:
        """Leave tensors out that are there already; return their bytes."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        self._known |= set(storages)
        return sum(storages.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and take its new storages in."""
        out = func(*args, **(kwargs or {}))
        for tensor in (t for t in tree_leaves(out) if isinstance(t, Tensor)):
            storage = tensor.untyped_storage()
            place, size = storage.data_ptr(), storage.nbytes()
            if place and place not in self._known:
                self._known.add(place)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._end, place, size)
        return out

    def _end(self, place: int, size: int) -> None:
        self.now -= size
        self._known.discard(place)


def step_bytes(what: Made, settings: MoeTrainingSection) -> int:
    """Measure the peak of the second step: weights, AdamW and all that comes and goes."""
    model = what.model
    _again(model, settings)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    peak = 0
    for _ in range(2):
        states = [v for state in optimizer.state.values() for v in state.values()]
        with Alive() as alive:
            standing = alive.know(*model.parameters(), *states)
            alive.know(*model.buffers(), *what.batch.values())
            for _ in range(settings.accumulate):
                with head_gives_losses(model, what.batch["input_ids"]), autocast(settings):
                    loss = model(**what.batch, use_cache=False).logits.sum()
                loss.backward()
                del loss
            optimizer.step()
            optimizer.zero_grad()
            peak = standing + alive.most
    return peak


def head_bytes(sizes: Sizes, shape: Shape, settings: MoeTrainingSection) -> tuple[int, int]:
    """Measure the head alone, its gradient left out, and return it with the plan's word."""
    from polyclinic.train import loss

    head = torch.nn.Linear(sizes.hidden, sizes.vocabulary, bias=False)
    states = torch.randn(sizes.packs, sizes.pack_tokens, sizes.hidden, requires_grad=True)
    labels = torch.randint(sizes.vocabulary, (states.shape[0] * states.shape[1],))
    with Alive() as alive:
        alive.know(head.weight, states, labels)
        with autocast(settings):
            total = loss._losses(head, labels, states).sum()
        total.backward()
    return alive.most, logit_bytes(shape, settings, sizes.pack_tokens)


def _again(model: PreTrainedModel, settings: MoeTrainingSection) -> None:
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})


def main() -> None:
    """Print the tables of docs/results/train.md."""
    print("| kept by a forward | measured MB | plan MB | plan / measured |\n|---|---|---|---|")
    for kind in ("qwen2", "qwen3"):
        for sizes in (TINY, SMALL):
            for sparse in (False, True):
                for precision in ("fp32", "bf16"):
                    _print_kept(kind, sizes, made(kind, sizes, sparse=sparse), precision)
    _print_kept("qwen2", PAPER, made("qwen2", PAPER, norm_topk_prob=False), "fp32")
    print("\n| peak of a step | measured MB | plan MB | plan / measured |\n|---|---|---|---|")
    for kind, precision, again, accumulate in (
        ("qwen2", "fp32", False, 1),
        ("qwen2", "fp32", False, 2),
        ("qwen3", "fp32", True, 1),
        ("qwen3", "fp32", True, 2),
        ("qwen3", "bf16", False, 2),
    ):
        what, settings = made(kind, SMALL), settings_of(SMALL, precision, again, accumulate)
        plan = memory(what.shape, settings, SMALL.pack_tokens, what.shape.parameters).total
        name = f"{kind} mixture, {precision}{', gradient_checkpointing' * again}, accumulate {accumulate}"
        _print(name, step_bytes(what, settings), plan)


def _print_kept(kind: str, sizes: Sizes, what: Made, precision: str) -> None:
    settings = settings_of(sizes, precision, again=False)
    name = f"{kind} {'mixture' if what.shape.sparse else 'dense'}, hidden {sizes.hidden}, {sizes.layers} layers, "
    name += f"{sizes.packs} x {sizes.pack_tokens} tokens, {precision}"
    _print(name, kept_bytes(what, settings), planned_kept_bytes(what, settings))


def _print(name: str, measured: int, plan: int) -> None:
    print(f"| {name} | {measured / MEGA:.2f} | {plan / MEGA:.2f} | {plan / measured:.3f} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
