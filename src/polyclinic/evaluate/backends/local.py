"""A local checkpoint as a model of lm-eval: the options of a question share its context, languages may have experts.

Tokens, truncation and answers are those of lm-eval's own class for transformers models. What differs
is how often a context is read (see `trees`), and that every row of a batch can be routed by the
language of its question.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator, handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from torch import Tensor
from transformers import AutoTokenizer

from polyclinic.errors import CheckpointError, UsageError
from polyclinic.evaluate.backends.experts import Experts
from polyclinic.evaluate.backends.quiet import quiet_lm_eval
from polyclinic.evaluate.backends.trees import Asked, Tree, alone, batches, lay_out, lay_out_chains, scores, trees
from polyclinic.moe.attach import Routing, attach, routing, sparse_layers
from polyclinic.moe.checkpoint import COMPANIONS, load_model, quiet
from polyclinic.runs import sha256_file, weight_digests

ENGINE = ("lm_eval", "torch", "transformers", "tokenizers")  # whose versions may change an answer
VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")
STOCK, HYBRID = "stock", "hybrid"
BATCH_TOKENS = 1024  # of a forward, with padding
TREE_TOKENS = 1024  # of questions whose contexts begin alike, or twice the context where that is more
LONGEST = 4096  # tokens of a context; longer ones are read for each choice, since a tree's mask is their square
MEMO = 64  # texts whose tokens are remembered
AGREE = {torch.float32: 1e-3}  # nats between shared and plain scores of a question
AGREE_ROUGHLY = 0.5  # in the types that round more

Score = tuple[float, bool]


class LocalModel(HFLM):
    """A checkpoint folder; `routing` is `stock`, or `hybrid` by the `language` of each request's document.

    Raises CheckpointError for a folder that cannot be loaded, has no experts to route to, or no token to end with.
    """

    def __init__(
        self,
        checkpoint: Path,
        route: str = STOCK,
        batch_size: int = 16,  # texts that are written at once
        dtype: torch.dtype = torch.float32,
        batch_tokens: int = BATCH_TOKENS,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.checkpoint, self.route, self._say = checkpoint, route, say
        self._batch_tokens, self._dtype = batch_tokens, dtype
        model = load_model(checkpoint, dtype).eval().requires_grad_(False)
        self._encoded: dict[str, list[int]] = {}
        self._experts = None
        if route == HYBRID:
            if not sparse_layers(model):
                what = "has no experts, so its routing cannot be hybrid"
                raise CheckpointError(checkpoint, what, "ask for stock routing, or give an upcycled checkpoint")
            attach(model, Routing.HYBRID)
            self._experts = Experts(checkpoint, model.config.num_experts)
        tokenizer = load_tokenizer(checkpoint)
        with quiet(), quiet_lm_eval():
            super().__init__(
                model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer=tokenizer, batch_size=batch_size
            )
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._shares = not looks_back_only_so_far(model.config)
        self._checked = False
        if not self._shares:
            self._say(f"{checkpoint}: its attention sees a window, so each option is scored with its own context")

    def facts(self) -> dict[str, Any]:
        """Return what decides the answers beside the requests."""
        companions = (self.checkpoint / name for name in COMPANIONS)
        return {
            "files": weight_digests(self.checkpoint) | {p.name: sha256_file(p) for p in companions if p.is_file()},
            "routing": self.route,
            "type": str(self._dtype),
            "device": self.device.type,
            "max_length": self.max_length,
            "versions": {name: version(name) for name in ENGINE},
        }

    def family_of(self, request: Instance) -> int:
        """Return the expert of a request's language, -1 where it is unknown or routing is stock."""
        if self._experts is None or not isinstance(request.doc, dict):
            return -1
        return self._experts.of(request.doc.get("language"))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Score]:
        """Return (nats, whether greedy decoding would have written it) for each request."""
        families = [self.family_of(request) for request in requests]
        pairs = [self._tokens(*request.args) for request in requests]
        return self._score([self._asked(*pair, family) for pair, family in zip(pairs, families, strict=True)])

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        """Encode as lm-eval does; the context of a question once for all its options."""
        if args or kwargs:
            return list(super().tok_encode(string, *args, **kwargs))
        if string not in self._encoded:
            if len(self._encoded) >= MEMO:
                self._encoded.clear()
            self._encoded[string] = super().tok_encode(string)
        return self._encoded[string]

    def _tokens(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Encode as lm-eval does, an empty context included."""
        if context:
            pair: tuple[list[int], list[int]] = self._encode_pair(context, continuation)
            return pair
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        prefix = self.prefix_token_id
        return ([prefix], tokens) if prefix != tokens[0] else (tokens[:1], tokens[1:])

    def _asked(self, context: Sequence[int], continuation: Sequence[int], family: int) -> Asked:
        """Cut from the left what the model has no positions for, as lm-eval does."""
        if not 0 < len(continuation) <= self.max_length:
            what = f"a choice of {len(continuation)} tokens cannot be scored in {self.max_length} positions"
            raise CheckpointError(self.checkpoint, what, "leave the question out")
        whole = [*context, *continuation][-(self.max_length + 1) :]
        return Asked(tuple(whole[: len(whole) - len(continuation)]), tuple(continuation), family)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], *_: Any, **__: Any
    ) -> list[Score]:
        """Score pairs of tokens without a language; what lm-eval builds whole texts from."""
        return self._score([self._asked(context, continuation, -1) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Return the nats of whole texts, in stock routing only."""
        if self._experts is not None:
            raise UsageError("hybrid", "whole texts are scored without their language", "use stock routing")
        return list(super().loglikelihood_rolling(requests, disable_tqdm=True))

    @torch.inference_mode()
    def _score(self, asked: Sequence[Asked]) -> list[Score]:
        found: dict[int, Score] = {}
        for batch in batches(self._rows(asked), self._batch_tokens, self.model.config.vocab_size):
            scored = self._forward(batch)
            if self._shares and not self._checked and not self._agrees(asked, scored):
                self._shares = False
                self._say(f"{self.checkpoint}: shared contexts change its scores, so each option has its own")
                return self._score(asked)
            found |= scored
        if any(math.isnan(found[owner][0]) for owner in found):
            raise CheckpointError(self.checkpoint, "its log-probabilities are not numbers", "check its training")
        return [found[owner] for owner in range(len(asked))]

    def _rows(self, asked: Sequence[Asked]) -> list[Tree]:
        """Lay out what shares a context together, unless the model or the length of the context forbids it."""
        short = [i for i, one in enumerate(asked) if self._shares and len(one.context) <= LONGEST]
        long = sorted(set(range(len(asked))) - set(short))
        return [*trees([asked[i] for i in short], TREE_TOKENS, short), *alone([asked[i] for i in long], long)]

    def _agrees(self, asked: Sequence[Asked], scored: dict[int, Score]) -> bool:
        """Compare the scores of one context with those of plain forwards; the first that has two choices."""
        contexts: dict[Any, list[int]] = {}
        for owner in scored:
            contexts.setdefault((asked[owner].family, asked[owner].context), []).append(owner)
        owners = max(contexts.values(), key=lambda some: min(len(some), 2))
        self._checked = len(owners) > 1
        plain = [self._forward(alone([asked[owner]], [0])) for owner in owners]
        agree = AGREE.get(self._dtype, AGREE_ROUGHLY)
        return all(abs(one[0][0] - scored[owner][0]) <= agree for one, owner in zip(plain, owners, strict=True))

    def _forward(self, rows: Sequence[Tree]) -> dict[int, Score]:
        if all(tree.is_chain for tree in rows):
            return self._forward_chains(rows)
        batch = lay_out(rows, self._dtype)
        inputs = {"attention_mask": batch.mask_R1SS, "position_ids": batch.positions_RS}
        return scores(self._logits(batch.tokens_RS, batch.families_RS, batch.keep, inputs), batch.pairs)

    def _logits(self, tokens_RS: Tensor, families_RS: Tensor, keep: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return logits (R, K, V) of the last `keep` places, or of those that it lists."""
        if self._experts is not None:
            inputs = {**inputs, "family_ids": families_RS}
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        if self._keeps:
            inputs["logits_to_keep"] = keep
        logits: Tensor = self.model(input_ids=tokens_RS.to(self.device), use_cache=False, **inputs).logits
        if self._keeps:
            return logits
        return logits[:, -keep:] if isinstance(keep, int) else logits[:, keep]

    def _forward_chains(self, rows: Sequence[Tree]) -> dict[int, Score]:
        """Score trees without branches, which need no mask: what comes behind a token is not seen by it."""
        batch = lay_out_chains(rows)
        return scores(self._logits(batch.tokens_RS, batch.families_RS, batch.places_K, {}), batch.pairs)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Return what the model writes after each context, up to a stop sequence or so many tokens."""
        asked = [(*request.args, self.family_of(request)) for request in requests]
        order = Collator(
            asked,
            sort_fn=lambda one: (-len(self.tok_encode(one[0])), one[0]),
            group_by="gen_kwargs",
            group_fn=lambda one: one[1],
        )
        written: list[str] = []
        for chunk in order.get_batched(n=self.batch_size, batch_fn=None):
            contexts, settings, families = zip(*chunk, strict=True)
            written += self._write(contexts, settings[0], families)
        return list(order.get_original(written))

    def _write(self, contexts: Sequence[str], settings: dict[str, Any], families: Sequence[int]) -> list[str]:
        """Write after a batch of contexts; stop sequences are cut off."""
        kwargs = normalize_gen_kwargs(settings, self.max_gen_toks)
        end = None if self.eot_token_id is None else self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(kwargs.pop("until", None), eos=end)
        new = kwargs.pop("max_gen_toks")
        if new >= self.max_length:
            what = f"its {self.max_length} positions leave no room before {new} new tokens"
            raise CheckpointError(self.checkpoint, what, "ask for fewer new tokens")
        tokens_RS, mask_RS = self.tok_batch_encode(list(contexts), left_truncate_len=self.max_length - new)
        length = tokens_RS.shape[1]
        guide = nullcontext() if self._experts is None else routing(self.model, Routing.HYBRID, list(families))
        with guide, quiet():
            written_RS = self._model_generate(
                context=tokens_RS.to(self.device),
                attention_mask=mask_RS.to(self.device),
                stop=stops,
                max_length=kwargs.pop("max_length", length + new),
                **kwargs,
            )
        texts = (self.tok_decode(row[length:]) for row in written_RS.tolist())
        return [postprocess_generated_text(text, stops, None) for text in texts]


def load_tokenizer(checkpoint: Path) -> Any:
    """Load a checkpoint's tokenizer; the name of a special token in a question is text to it.

    Raises CheckpointError where there is none, or none of its tokens can pad or end a text.
    """
    if not any((checkpoint / name).is_file() for name in VOCABULARIES):  # the stock loader would make up an empty one
        raise CheckpointError(checkpoint, "holds no tokenizer", "copy the tokenizer of this model into it")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, split_special_tokens=True)
    except Exception as err:  # strange files fail anywhere in the stock classes
        what = f"its tokenizer cannot be loaded ({type(err).__name__})"
        raise CheckpointError(checkpoint, what, "fetch the checkpoint again") from err
    if not any((tokenizer.pad_token, tokenizer.unk_token, tokenizer.eos_token)):
        what = "its tokenizer has no token to end or pad a text with"
        raise CheckpointError(checkpoint, what, "name eos_token in tokenizer_config.json")
    return tokenizer


def looks_back_only_so_far(config: Any) -> bool:
    """Say whether a model has layers whose attention is not given a mask as it is: windows, states, chunks."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return kinds != {"full_attention"} or (window is not None and not getattr(config, "layer_types", None))
