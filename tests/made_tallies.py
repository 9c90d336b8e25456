"""Tallies of simulated tokens: a world of languages, ids and documents, and routers whose sight is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from polyclinic.analyse.tally import LayerCounts, SharedTokens, Tally, TopTokens


@dataclass(frozen=True)
class World:
    """Simulated tokens, T of them; what a router may look at."""

    languages: tuple[str, ...]
    language: np.ndarray  # (T,)
    number: np.ndarray  # (T,) number of the bucket
    bucket: np.ndarray  # (T,)
    token: np.ndarray  # (T,)
    previous: np.ndarray  # (T,) -1 at a document's start
    place: np.ndarray  # (T,) 0 to 1

    @property
    def bucket_language(self) -> np.ndarray:
        return np.arange(self.bucket.max() + 1) // (self.number.max() + 1)

    def __len__(self) -> int:
        return len(self.token)


Router = Callable[[World, int, np.random.Generator], np.ndarray]  # -> probabilities (T, E)


def world(
    languages: tuple[str, ...] = ("en", "fr", "ru", "zh"),
    buckets: int = 16,
    tokens: int = 400,
    ids: int = 40,
    shared: int | None = None,
    seed: int = 0,
) -> World:
    """Draw `tokens` a bucket from a steep distribution over ids; only the first `shared` ids are of all languages."""
    generator = np.random.default_rng(seed)
    total = len(languages) * buckets * tokens
    bucket = np.repeat(np.arange(len(languages) * buckets), tokens)
    language = bucket // buckets
    steep = 1 / np.arange(3, ids + 3)
    token = generator.choice(ids, total, p=steep / steep.sum())
    if shared is not None:
        token = np.where(token < shared, token, token + language * ids)
    place = np.tile(np.arange(tokens) / tokens, len(languages) * buckets)
    previous = np.where(place > 0, np.roll(token, 1), -1)
    return World(languages, language, bucket % buckets, bucket, token, previous, place)


def sees(labels: np.ndarray, num_experts: int, seed: int, sharp: float = 1.0) -> np.ndarray:
    """Return probabilities (T, E): one expert for each label with `sharp`, the rest evenly."""
    generator = np.random.default_rng(seed)
    names, index = np.unique(labels, return_inverse=True)
    favourite = (generator.permutation(len(names)) + generator.integers(num_experts)) % num_experts
    out = np.full((len(labels), num_experts), (1 - sharp) / num_experts)
    out[np.arange(len(labels)), favourite[index]] += sharp
    return out


def tally(
    made: World,
    routers: list[Router],
    num_experts: int = 4,
    top_k: int = 1,
    seed: int = 0,
    layers: list[int] | None = None,
) -> Tally:
    """Route the world and count: picks without replacement, in proportion to the router's probabilities."""
    generator = np.random.default_rng(seed)
    picks, margins, entropies = [], [], []
    for position, router in enumerate(routers):
        share = router(made, position, generator)
        with np.errstate(divide="ignore"):
            noisy = np.log(share) + generator.gumbel(size=share.shape)
        chosen = np.argsort(-noisy, axis=1, kind="stable")[:, :top_k]
        picks.append(chosen)
        ordered = -np.sort(-share, axis=1)
        margins.append(ordered[:, top_k - 1] - (ordered[:, top_k] if top_k < num_experts else 0.0))
        entropies.append(-(share * np.log(np.where(share > 0, share, 1.0))).sum(1))
    return counted(made, np.stack(picks, 1), (np.stack(margins, 1), np.stack(entropies, 1)), num_experts, layers)


def counted(
    made: World,
    picks_TLK: np.ndarray,
    sums: tuple[np.ndarray, np.ndarray],
    num_experts: int,
    layers: list[int] | None = None,
) -> Tally:
    """Count picks of tokens into a tally."""
    num_layers, top_k = picks_TLK.shape[1:]
    num_buckets, num_languages = int(made.bucket.max()) + 1, len(made.languages)
    first = np.zeros((num_buckets, num_layers, num_experts), dtype=np.int64)
    picks = np.zeros_like(first)
    co = np.zeros((num_layers, num_experts, num_experts), dtype=np.int64)
    following = np.zeros((num_languages, max(0, num_layers - 1), num_experts, num_experts), dtype=np.int64)
    position = np.zeros((num_layers, 10, num_experts), dtype=np.int64)
    for layer in range(num_layers):
        chosen = picks_TLK[:, layer]
        first[:, layer] = table((num_buckets, num_experts), made.bucket, chosen[:, 0])
        position[layer] = table((10, num_experts), (made.place * 10).astype(int), chosen[:, 0])
        for one in range(top_k):
            picks[:, layer] += table((num_buckets, num_experts), made.bucket, chosen[:, one])
            for other in range(top_k):
                co[layer] += table((num_experts, num_experts), chosen[:, one], chosen[:, other])
        if layer:
            shape = (num_languages, num_experts, num_experts)
            following[:, layer - 1] = table(shape, made.language, picks_TLK[:, layer - 1, 0], chosen[:, 0])
    margin, entropy = (np.stack([np.bincount(made.language, s, num_languages) for s in part.T], 1) for part in sums)
    return Tally(
        layers=tuple(layers or range(num_layers)),
        num_experts=num_experts,
        top_k=top_k,
        languages=made.languages,
        bucket_language=made.bucket_language,
        bucket_number=np.arange(num_buckets) % (int(made.number.max()) + 1),
        first_BLE=first,
        picks_BLE=picks,
        tokens_B=np.bincount(made.bucket, minlength=num_buckets),
        co_LEE=co,
        next_GLEE=following,
        margin_GL=margin,
        entropy_GL=entropy,
        position_LPE=position,
        own_GL=np.zeros((num_languages, num_layers), dtype=np.int64),
        shared=shared_tokens(made, picks_TLK, num_experts),
        top_tokens=top_tokens(made, picks_TLK, num_experts),
    )


def table(shape: tuple[int, ...], *fields: np.ndarray) -> np.ndarray:
    """Count how often each combination of fields occurs."""
    return np.bincount(np.ravel_multi_index(fields, shape), minlength=int(np.prod(shape))).reshape(shape)


def shared_tokens(made: World, picks_TLK: np.ndarray, num_experts: int) -> SharedTokens:
    """Count by id, by predecessor and by bucket, every id and pair."""
    ids, token = np.unique(made.token, return_inverse=True)
    inner = made.previous >= 0
    rows, row = numbered(token, made.bucket)
    pairs, pair = numbered(token[inner], made.previous[inner], made.bucket[inner])
    return SharedTokens(
        ids,
        *rows,
        layer_counts(row, picks_TLK, num_experts, True),
        *pairs,
        layer_counts(pair, picks_TLK[inner], num_experts, False),
    )


def numbered(*fields: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the distinct rows of the fields in their order, and the row of each token."""
    sizes = [int(field.max()) + 1 for field in fields]
    names, index = np.unique(np.ravel_multi_index(fields, sizes), return_inverse=True)
    return list(np.unravel_index(names, sizes)), index


def layer_counts(row: np.ndarray, picks_TLK: np.ndarray, num_experts: int, every: bool) -> LayerCounts:
    """Count (row, expert) in each layer."""
    parts, starts = [], [0]
    for layer in range(picks_TLK.shape[1]):
        size = (int(row.max(initial=0)) + 1) * num_experts
        first = np.bincount(row * num_experts + picks_TLK[:, layer, 0], minlength=size)
        picks = sum(np.bincount(row * num_experts + p, minlength=size) for p in picks_TLK[:, layer].T)
        there = np.flatnonzero(picks if every else first)
        parts.append(np.stack([there // num_experts, there % num_experts, first[there], picks[there]]))
        starts.append(starts[-1] + len(there))
    entries = np.concatenate(parts, 1).astype(np.int64)
    return LayerCounts(np.array(starts), *entries[:3], entries[3] if every else np.zeros(0, dtype=np.int64))


def top_tokens(made: World, picks_TLK: np.ndarray, num_experts: int, length: int = 50) -> TopTokens:
    """List for each expert the ids most frequent at it."""
    shape = (picks_TLK.shape[1], num_experts, length)
    ids, count, total, language = (np.full(shape, fill) for fill in (-1, 0, 0, -1))
    totals = np.bincount(made.token)
    by_language = np.zeros((len(totals), len(made.languages)), dtype=np.int64)
    np.add.at(by_language, (made.token, made.language), 1)
    for layer in range(shape[0]):
        for expert in range(num_experts):
            counts = np.bincount(made.token[picks_TLK[:, layer, 0] == expert], minlength=len(totals))
            best = np.argsort(-counts, kind="stable")[: min(length, int((counts > 0).sum()))]
            ids[layer, expert, : len(best)] = best
            count[layer, expert, : len(best)] = counts[best]
            total[layer, expert, : len(best)] = totals[best]
            language[layer, expert, : len(best)] = by_language[best].argmax(1)
    return TopTokens(ids, count, total, language)
