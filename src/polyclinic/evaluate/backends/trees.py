"""Continuations of one context as a tree: tokens that they share are read once.

A row of a batch holds one tree. Each token sees its ancestors and itself, and stands at the position
that it has in its own text, so its logits are those of a plain forward over that text. Tokens whose
logits are needed stand last in the row and padding first, so a batch asks for logits of its end only.

Shape letters: R rows, S tokens of the longest row, K tokens with logits, V vocabulary.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

WORTH_SHARING = 32  # tokens that contexts have in common before they are put into one row
MOST_LOGITS = 1 << 26  # of a batch, over all its words


class Asked(NamedTuple):
    """A continuation to be scored after a context, in tokens; `family` is the expert of its language or -1."""

    context: tuple[int, ...]
    targets: tuple[int, ...]
    family: int


class Pair(NamedTuple):
    """A token to be scored: the node that predicts it, the token, and whose it is."""

    node: int
    target: int
    owner: int


@dataclass
class Tree:
    """Tokens by node; a parent comes before its children, -1 is none."""

    family: int = -1
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)

    def grow(self, node: int, tokens: Sequence[int]) -> list[int]:
        """Walk down from a node, adding what is not there; returns the nodes that were passed."""
        path = []
        for token in tokens:
            below = self.children.get((node, token))
            if below is None:
                below = len(self.tokens)
                self.children[node, token] = below
                self.tokens.append(token)
                self.parents.append(node)
                self.depths.append(self.depths[node] + 1 if node >= 0 else 0)
            path.append(below)
            node = below
        return path

    def ask(self, asked: Asked, owner: int) -> None:
        """Add a continuation; all its tokens but the last are read, and each is predicted by the one before."""
        end = self.grow(-1, asked.context)[-1]
        nodes = [end, *self.grow(end, asked.targets[:-1])]
        self.pairs += [Pair(node, target, owner) for node, target in zip(nodes, asked.targets, strict=True)]

    @property
    def scored(self) -> list[int]:
        """Return the nodes whose logits are needed, in order."""
        return sorted({pair.node for pair in self.pairs})

    @property
    def is_chain(self) -> bool:
        """Say whether no token has two behind it."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def order(self) -> list[int]:
        """Return the nodes as they stand in the row: those without logits, then those with."""
        scored = self.scored
        needed = set(scored)
        return [node for node in range(len(self.tokens)) if node not in needed] + scored

    def sees(self) -> np.ndarray:
        """Return which node sees which, as (nodes, nodes)."""
        size = len(self.tokens)
        out = np.zeros((size, size), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                out[node] = out[parent]
            out[node, node] = True
        return out


class Chains(NamedTuple):
    """A batch of trees without branches, padded behind; logits are those of the listed places."""

    tokens_RS: Tensor
    families_RS: Tensor
    places_K: Tensor
    pairs: list[tuple[int, int, int, int]]  # row, place among K, target, owner


class Batch(NamedTuple):
    """What a forward is given, and where in its logits (R, K, V) each pair is read."""

    tokens_RS: Tensor
    positions_RS: Tensor
    mask_R1SS: Tensor
    families_RS: Tensor
    keep: int
    pairs: list[tuple[int, int, int, int]]  # row, place among K, target, owner


def trees(asked: Sequence[Asked], most_tokens: int, owners: Sequence[int]) -> list[Tree]:
    """Put continuations of one context into one tree, and contexts that begin alike, too.

    These up to so many tokens, or twice their context where that is more.
    """
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for place, one in enumerate(asked):
        groups.setdefault((one.family, one.context), []).append(place)
    out: list[Tree] = []
    before: tuple[int, tuple[int, ...]] = (-2, ())
    for key in sorted(groups):
        more = max(1, len(key[1]) - _common(before[1], key[1])) + sum(len(asked[i].targets) - 1 for i in groups[key])
        alike = key[0] == before[0] and _common(before[1], key[1]) >= max(WORTH_SHARING, len(key[1]) // 3)
        if not (out and alike and len(out[-1].tokens) + more <= max(most_tokens, 2 * len(key[1]))):
            out.append(Tree(family=key[0]))
        for place in groups[key]:
            out[-1].ask(asked[place], owners[place])
        before = key
    return out


def alone(asked: Sequence[Asked], owners: Sequence[int]) -> list[Tree]:
    """Put each continuation into a tree of its own, unless the tokens that are read are the same."""
    out: dict[tuple[int, tuple[int, ...]], Tree] = {}
    for owner, one in zip(owners, asked, strict=True):
        read = (one.family, (*one.context, *one.targets[:-1]))
        out.setdefault(read, Tree(family=one.family)).ask(one, owner)
    return list(out.values())


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two contexts begin with alike."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def batches(rows: Sequence[Tree], most_tokens: int, vocabulary: int) -> Iterator[list[Tree]]:
    """Yield trees of like length together, longest first, within so many tokens with padding.

    Trees without branches need no mask and are never in one batch with others.
    """
    batch: list[Tree] = []
    keep = 0
    for is_chain, _, tree in sorted(((tree.is_chain, -len(tree.tokens), tree) for tree in rows), key=lambda t: t[:2]):
        wider = max(keep, len(tree.scored))
        tokens = (len(batch) + 1) * len(batch[0].tokens) if batch else 0
        full = tokens > most_tokens or (len(batch) + 1) * wider * vocabulary > MOST_LOGITS
        if batch and (full or batch[0].is_chain != is_chain):
            yield batch
            batch, wider = [], len(tree.scored)
        batch.append(tree)
        keep = wider
    if batch:
        yield batch


def lay_out(rows: Sequence[Tree], dtype: torch.dtype = torch.float32) -> Batch:
    """Return the tensors of a batch; padding stands first and sees itself alone."""
    longest = max(len(tree.tokens) for tree in rows)
    keep = max(len(tree.scored) for tree in rows)
    tokens, positions = (np.zeros((len(rows), longest), dtype=np.int64) for _ in range(2))
    families = np.full((len(rows), longest), -1, dtype=np.int64)
    sees = np.zeros((len(rows), 1, longest, longest), dtype=bool)
    sees[:, 0, range(longest), range(longest)] = True
    pairs = []
    for row, tree in enumerate(rows):
        order, begin = tree.order(), longest - len(tree.tokens)
        tokens[row, begin:] = np.array(tree.tokens)[order]
        positions[row, begin:] = np.array(tree.depths)[order]
        families[row, begin:] = tree.family
        sees[row, 0, begin:, begin:] = tree.sees()[np.ix_(order, order)]
        place = {node: keep - len(tree.scored) + i for i, node in enumerate(tree.scored)}
        pairs += [(row, place[pair.node], pair.target, pair.owner) for pair in tree.pairs]
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(torch.from_numpy(~sees), torch.finfo(dtype).min)
    tokens_RS, positions_RS, families_RS = map(torch.from_numpy, (tokens, positions, families))
    return Batch(tokens_RS, positions_RS, mask, families_RS, keep, pairs)


def lay_out_chains(rows: Sequence[Tree]) -> Chains:
    """Return the tensors of a batch whose trees have no branches."""
    longest = max(len(tree.tokens) for tree in rows)
    tokens = np.zeros((len(rows), longest), dtype=np.int64)
    for row, tree in enumerate(rows):
        tokens[row, : len(tree.tokens)] = tree.tokens
    families = np.repeat([[tree.family] for tree in rows], longest, axis=1)
    places = sorted({pair.node for tree in rows for pair in tree.pairs})
    place = {node: i for i, node in enumerate(places)}
    pairs = [(row, place[p.node], p.target, p.owner) for row, tree in enumerate(rows) for p in tree.pairs]
    return Chains(torch.from_numpy(tokens), torch.from_numpy(families), torch.tensor(places), pairs)


def scores(logits_RKV: Tensor, pairs: Sequence[tuple[int, int, int, int]]) -> dict[int, tuple[float, bool]]:
    """Return nats of each owner's tokens, and whether each of them was the likeliest word."""
    rows, places, targets, owners = (list(column) for column in zip(*pairs, strict=True))
    logits_RKV = logits_RKV.float()
    nats = logits_RKV[rows, places, targets] - logits_RKV.logsumexp(-1)[rows, places]
    likeliest = logits_RKV.argmax(-1)[rows, places].tolist()
    out: dict[int, tuple[float, bool]] = {}
    found = zip(owners, nats.double().tolist(), likeliest, targets, strict=True)
    for owner, steps in itertools.groupby(found, key=lambda step: step[0]):
        before = out.get(owner, (0.0, True))
        for _, nat, word, target in steps:
            before = (before[0] + nat, before[1] and word == target)
        out[owner] = before
    return out
