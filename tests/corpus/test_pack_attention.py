"""What restarting positions are for: documents of one pack do not see each other in a stock model."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from polyclinic.corpus.pack.pack import Packing, load_tokenizer, pack
from polyclinic.corpus.pack.shards import Shards
from polyclinic.progress import Silent
from polyclinic.records import Document, Turn

LENGTH = 48
TEXTS = ("Drink clean water.", "Пейте чистую воду.", "x", "喝清洁的水。")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> Qwen3ForCausalLM:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,  # large, so that a token that is seen by mistake changes the logits
        attn_implementation=request.param,
    )
    return Qwen3ForCausalLM(config).eval()


def packs(folder: Path, texts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and positions of the packs of some texts, shape (packs, LENGTH)."""
    tokenizer, specials = load_tokenizer(folder)
    documents = [Document("i", "en", "s", "l", "g", (Turn("text", text),)) for text in texts]
    with TemporaryDirectory() as place:
        options = Packing(LENGTH, "all", 0, "in_order")
        pack(documents, tokenizer, specials, lambda code: 0, Path(place), options, Silent())
        rows = list(Shards(Path(place)))
    tokens, positions = (np.stack([row[name] for row in rows]) for name in ("input_ids", "position_ids"))
    return torch.from_numpy(tokens).long(), torch.from_numpy(positions).long()


def logits(model: Qwen3ForCausalLM, tokens: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
    """Return the logits as training computes them: positions, no mask, and no cache, which would undo the packing."""
    with torch.no_grad():
        return model(input_ids=tokens, position_ids=positions, use_cache=False).logits


def pieces(positions: torch.Tensor) -> list[tuple[int, slice]]:
    """Return where the documents stand: pack and stretch of tokens."""
    out = []
    for row, places in enumerate(positions.tolist()):
        starts = [i for i, place in enumerate(places) if place == 0]
        out += [(row, slice(a, b)) for a, b in zip(starts, [*starts[1:], LENGTH], strict=True)]
    return out


def test_a_document_in_a_pack_has_the_logits_it_has_alone(model: Qwen3ForCausalLM, byte_tokenizer: Path) -> None:
    tokens, positions = packs(byte_tokenizer, TEXTS)
    together = logits(model, tokens, positions)
    found = pieces(positions)
    assert len(found) >= len(TEXTS) + 1  # one goes on in the next pack
    for row, piece in found:
        alone = logits(model, tokens[row : row + 1, piece])[0]
        assert (together[row, piece] - alone).abs().max() < 1e-5


def test_changing_one_document_changes_no_other(model: Qwen3ForCausalLM, byte_tokenizer: Path) -> None:
    tokens, positions = packs(byte_tokenizer, TEXTS)
    before = logits(model, tokens, positions)
    for row, piece in pieces(positions):
        changed = tokens.clone()
        changed[row, piece] = (changed[row, piece] + 7) % 258
        after = logits(model, changed, positions)
        difference = (after - before).abs().amax(-1)
        assert difference[row, piece].min() > 1e-3
        difference[row, piece] = 0
        assert difference.max() < 1e-5


def test_without_restarting_positions_documents_do_see_each_other(
    model: Qwen3ForCausalLM, byte_tokenizer: Path
) -> None:
    """The test above can fail: numbered through, the same tokens have other logits."""
    tokens, positions = packs(byte_tokenizer, TEXTS)
    through = torch.arange(LENGTH).expand_as(positions)
    difference = (logits(model, tokens, through) - logits(model, tokens, positions)).abs().amax(-1)
    assert difference[0, pieces(positions)[1][1]].max() > 1e-2
