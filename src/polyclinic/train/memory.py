"""Bytes that training a mixture takes on one GPU, by formula, from sizes alone.

The loop keeps weights, gradients and AdamW in fp32 whatever the precision of products is; under bf16 autocast
products read copies. What a layer keeps for its gradients is counted tensor by tensor, as the stock classes of
transformers 5.23 save it under sdpa attention; after the manner of Korthikanti et al., arXiv 2205.05198, section
4.1, whose layer has other parts. All figures are bytes, whole numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from polyclinic.recipe import TrainingSection, UpcycleSection
from polyclinic.train.loss import PIECE_BYTES
from polyclinic.train.stop import STATES_OF_ADAMW

Parallel = Literal["none", "ddp", "fsdp"]
FP32, BF16, INT64 = 4, 2, 8
LOGIT_COPIES = 3  # logits, their log-softmax and their gradient at once: benchmarks/training_memory.py
GATHERED_LAYERS = 2  # the one at work and the one fetched ahead


@dataclass(frozen=True)
class Shape:
    """Sizes of a mixture."""

    hidden: int
    inner: int
    layers: int
    sparse: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    experts: int
    top_k: int
    normalise: bool
    shared: int | None  # width of the shared expert; None where its class has none
    head_norms: bool
    parameters: int
    active: int  # of one token

    @property
    def width(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head

    @property
    def kv_width(self) -> int:
        """Width of all key heads."""
        return self.kv_heads * self.head

    @property
    def words(self) -> int:
        """Parameters of the output head, which a tied model shares with its embeddings."""
        return self.vocabulary * self.hidden

    @property
    def of_experts(self) -> int:
        """Parameters of all routed experts."""
        return self.sparse * self.experts * 3 * self.hidden * self.inner

    @property
    def routers(self) -> int:
        """Parameters of all routers."""
        return self.sparse * self.experts * self.hidden

    @property
    def widest_layer(self) -> int:
        """Parameters of the largest layer, without biases and norms."""
        attention = 2 * self.hidden * (self.width + self.kv_width)
        return attention + self.experts * (3 * self.inner + 1) * self.hidden + 3 * self.hidden * (self.shared or 0)


def shape_of(config: Mapping[str, Any], facts: Mapping[str, Any], section: UpcycleSection) -> Shape:
    """Return the sizes of a mixture from its parent's resolved config and its forecast."""
    native_shared = facts["moe_type"] == "qwen2_moe"
    shared = 0 if section.shared_expert == "none" else int(config["intermediate_size"])
    return Shape(
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        layers=facts["num_layers"],
        sparse=len(facts["sparse_layers"]),
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head=config["head_dim"],
        vocabulary=config["vocab_size"],
        tied=bool(config["tie_word_embeddings"]),
        experts=facts["num_experts"],
        top_k=facts["top_k"],
        normalise=section.norm_topk_prob,
        shared=shared if native_shared else None,
        head_norms=not native_shared,
        parameters=facts["total_parameters"],
        active=facts["active_parameters"],
    )


def layer_bytes(shape: Shape, pack_tokens: int, product: int, *, sparse: bool) -> int:
    """Return what one layer keeps of each token for its gradients.

    `product` is the width of a number in a product, 4 or 2. Norms: input and normalised input in fp32, one root.
    Attention by a fused kernel keeps queries, keys and values (repeated to all heads, as the mask of packs makes
    transformers do), outputs, a logsumexp per head, and no scores; but the mask of packs as one number per pair of
    tokens, made anew in each layer. Under autocast each product keeps a copy of its own input.
    """
    hidden, width, kv_width = shape.hidden, shape.width, shape.kv_width
    inputs = 1 if product == FP32 else 3
    out = 2 * FP32 * (2 * hidden + 1) + product * (inputs * hidden + 4 * width + pack_tokens) + FP32 * shape.heads
    if shape.head_norms:
        out += (FP32 + product) * (width + kv_width) + FP32 * (shape.heads + shape.kv_heads)
    if sparse:
        return out + _experts_bytes(shape, product)
    return out + product * ((1 if product == FP32 else 2) * hidden + 4 * shape.inner)


def _experts_bytes(shape: Shape, product: int) -> int:
    """Return what a sparse feed-forward keeps of each token.

    Experts stay in fp32 under autocast, which does not know the grouped product. For each of the picks: gathered
    input, gate and up in one, activation, product of both, output; and five places in the sorted order.
    """
    copies = product * shape.hidden
    picks = shape.top_k * (FP32 * (2 * shape.hidden + 4 * shape.inner) + 5 * INT64 + product)
    out = copies + picks + FP32 * shape.experts + (FP32 * (1 + shape.top_k) if shape.normalise else 0)
    if shape.shared is None:
        return out
    if product == BF16:
        out += BF16 * shape.hidden * (3 if shape.shared else 1)
    kept = product * (shape.hidden + 4 * shape.shared) if shape.shared else FP32 * shape.hidden
    return out + product + kept


def activation_bytes(shape: Shape, settings: TrainingSection, pack_tokens: int) -> int:
    """Return what a batch keeps from its forward for its backward, without the head's logits.

    Each layer's inner tensors, or with gradient checkpointing (arXiv 1604.06174) each layer's input alone. Beside
    them: ids, rotary tables, the boolean mask of packs, the last norm and its output.
    """
    product = product_bytes(settings)
    dense, sparse = (layer_bytes(shape, pack_tokens, product, sparse=kind) for kind in (False, True))
    layers = (shape.layers - shape.sparse) * dense + shape.sparse * sparse
    if settings.gradient_checkpointing:
        layers = FP32 * shape.hidden * shape.layers
    beside = INT64 + 2 * FP32 * shape.head + pack_tokens + FP32 * (3 * shape.hidden + 1)
    return settings.batch_packs * pack_tokens * (layers + beside)


def recomputed_bytes(shape: Shape, settings: TrainingSection, pack_tokens: int) -> int:
    """Return what the backward of one layer takes under gradient checkpointing, of the larger kind.

    The inner tensors made again, and the gradients of gate, up and their product. Else 0: they are kept already, and
    the logits are gone by then.
    """
    if not settings.gradient_checkpointing:
        return 0
    product = product_bytes(settings)
    dense = layer_bytes(shape, pack_tokens, product, sparse=False) + 3 * product * shape.inner
    sparse = layer_bytes(shape, pack_tokens, product, sparse=True) + 3 * FP32 * shape.top_k * shape.inner
    return settings.batch_packs * pack_tokens * max(dense, sparse)


def product_bytes(settings: TrainingSection) -> int:
    """Return the width of a number in a product."""
    return BF16 if settings.precision == "bf16" else FP32


def pieces_of_head(shape: Shape, settings: TrainingSection, pack_tokens: int) -> tuple[int, int]:
    """Return how many pieces the head makes of a batch, and the bytes of one piece's fp32 logits (`train.loss`)."""
    tokens = settings.batch_packs * pack_tokens
    rows = min(tokens, max(1, PIECE_BYTES // (FP32 * shape.vocabulary)))
    return -(-tokens // rows), rows * FP32 * shape.vocabulary


def logit_bytes(shape: Shape, settings: TrainingSection, pack_tokens: int) -> int:
    """Return the peak of the head beyond its gradient.

    Three copies of a piece; or, where pieces are several, what autograd sums their gradients of the weights with: the
    sum so far, a piece's and their sum, in fp32. One of them takes the place of the gradient, unless an earlier batch
    left one.
    """
    pieces, piece = pieces_of_head(shape, settings, pack_tokens)
    if pieces == 1:
        return LOGIT_COPIES * piece
    head = FP32 * shape.words
    return max(LOGIT_COPIES * piece, 2 * head) + (head if settings.accumulate > 1 else 0)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: int
    gradients: int
    adamw: int
    copies: int  # bf16 copies of weights; buckets of DDP; what FSDP gathers
    activations: int
    logits: int
    recomputed: int

    @property
    def working(self) -> int:
        """Return the larger of what the head and what a layer computed again takes; they never meet."""
        return max(self.logits, self.recomputed)

    @property
    def total(self) -> int:
        """Return the sum of all parts: a bound, since in the first batch of a step gradients grow as activations go."""
        return self.weights + self.gradients + self.adamw + self.copies + self.activations + self.working


def trained_parameters(shape: Shape, routing: str) -> int:
    """Return how many parameters get gradients; under `language` the routers are frozen."""
    return shape.parameters - (shape.routers if routing == "language" else 0)


def memory(
    shape: Shape, settings: TrainingSection, pack_tokens: int, trained: int, parallel: Parallel = "none", gpus: int = 1
) -> Memory:
    """Return the bytes on each GPU.

    4 of weights, 4 of gradients and 8 of AdamW for a parameter. `ddp`: all on every GPU, and gradients once more in
    buckets. `fsdp` (ZeRO stage 3, arXiv 1910.02054): all divided, and gathered for the time of use: weights of two
    layers, gradients of one, and both of embeddings and head.
    """
    parts = gpus if parallel == "fsdp" else 1
    copies = 0
    if settings.precision == "bf16":  # of what stands in products of autocast: no experts, no table of embeddings
        copies += BF16 * (shape.parameters - shape.of_experts - (0 if shape.tied else shape.words))
    if parallel == "ddp":
        copies += FP32 * trained
    if parallel == "fsdp":
        ends = shape.words * (1 if shape.tied else 2)
        copies += FP32 * ((GATHERED_LAYERS + 1) * shape.widest_layer + 2 * ends)
    return Memory(
        weights=_share(FP32 * shape.parameters, parts),
        gradients=_share(FP32 * trained, parts),
        adamw=_share(FP32 * STATES_OF_ADAMW * trained, parts),
        copies=copies,
        activations=activation_bytes(shape, settings, pack_tokens),
        logits=logit_bytes(shape, settings, pack_tokens),
        recomputed=recomputed_bytes(shape, settings, pack_tokens),
    )


def _share(total: int, parts: int) -> int:
    return -(-total // parts)
