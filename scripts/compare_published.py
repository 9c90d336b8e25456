"""Hold our routing against the published Apollo-MoE code, run in an environment of its own.

    OLD_PYTHON scripts/compare_published.py record CODE FOLDER [--width real]
    python scripts/compare_published.py compare FOLDER

`record` runs the published modelling file (CODE is the folder it lies in; transformers 4.44) on random
weights and inputs and writes its checkpoint, logits, gradients and the tokens each expert got.
`compare` imports that checkpoint with `upcycle import-apollo`, runs the native model with our
routing on the same inputs, and prints the largest differences. Nothing of the published code is
needed, read or run by `compare`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

BOUND = 2e-6  # of logits and loss, relative to the largest value; picks must be the same
# Of gradients: backward passes of two releases of transformers sum in other orders, attention included.
BACKWARD_BOUND = 1e-5
WIDTHS = {
    "toy": {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "vocab_size": 256},
    "real": {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "vocab_size": 4096},
}
LAYERS, EXPERTS, BATCH = 4, {False: 7, True: 12}, (2, 40)


def record(code: Path, folder: Path, width: str, shared: bool) -> None:
    """Run the published class in training and at test and write what it gave."""
    sys.path.insert(0, str(code))
    import importlib

    module: Any = importlib.import_module("modeling_upcycling_qwen2_moe")
    sizes = {**WIDTHS[width], "num_hidden_layers": LAYERS, "num_key_value_heads": 2, "tie_word_embeddings": True}
    top_k = 1 if shared else 2  # as its conversion sets it
    routing = {
        "share_flag": shared,
        "language_gate": True,
        "num_experts": EXPERTS[shared],
        "num_experts_per_tok": top_k,
    }
    config = module.UpcyclingQwen2MoeConfig(**sizes, **routing, initializer_range=0.05, rope_theta=1e6)
    config.register_for_auto_class()
    torch.manual_seed(0)
    model = module.UpcyclingQwen2MoeForCausalLM(config)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(config.vocab_size, BATCH, generator=generator)
    families = torch.randint(EXPERTS[shared], BATCH, generator=generator)
    folder.mkdir(parents=True)
    model.save_pretrained(folder / "published")
    out = {"tokens": tokens, "families": families}
    counts = _count_published(model)
    with torch.no_grad():
        out["test_logits"] = model.eval()(input_ids=tokens).logits
    out["test_counts"] = counts()
    given = model.train()(input_ids=tokens, language_ids=families, labels=tokens)
    given.loss.backward()
    out |= {"train_logits": given.logits.detach(), "train_loss": given.loss.detach(), "train_counts": counts()}
    out |= {f"grad.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    save_file({n: t.contiguous() for n, t in out.items()}, folder / "recorded.safetensors")
    (folder / "facts.json").write_text(json.dumps({"shared": shared, "width": width, "torch": torch.__version__}))


def _count_published(model: Any) -> Any:
    """Count the rows each expert of each sparse layer is given since the last call."""
    layers = [layer for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    seen = torch.zeros(len(layers), model.config.num_experts, dtype=torch.long)
    for i, layer in enumerate(layers):
        for e, expert in enumerate(layer.mlp.experts):

            def hook(_: Any, args: Any, i: int = i, e: int = e) -> None:
                seen[i, e] += args[0].shape[0]

            expert.register_forward_pre_hook(hook)

    def take() -> Tensor:
        got = seen.clone()
        seen.zero_()
        return got

    return take


def compare(folder: Path) -> dict[str, float]:
    """Import the published checkpoint and return relative differences of everything recorded."""
    from polyclinic.moe.attach import Routing, attach, sparse_layers
    from polyclinic.moe.checkpoint import load_model
    from polyclinic.upcycle.import_apollo import import_apollo

    facts, theirs = json.loads((folder / "facts.json").read_text()), load_file(folder / "recorded.safetensors")
    native = folder / "native"
    if not native.is_dir():
        native.mkdir()
        import_apollo(folder / "published", native, None)
    model: Any = load_model(native)
    picked: list[Tensor] = []
    for layer in sparse_layers(model).values():
        layer.mlp.experts.register_forward_pre_hook(lambda _, args: picked.append(_counts(args, model)))
    tokens, families = theirs["tokens"], theirs["families"]
    with torch.no_grad():
        logits = model.eval()(tokens).logits
    out = {"logits at test": _relative(logits, theirs["test_logits"])}
    out["tokens per expert at test, differing"] = float((torch.stack(picked) - theirs["test_counts"]).abs().sum())
    picked.clear()
    attach(model, Routing.LANGUAGE_TRAINING if facts["shared"] else Routing.HYBRID_TRAINING)
    given = model.train()(tokens, labels=tokens, family_ids=families)
    given.loss.backward()
    out["logits in training"] = _relative(given.logits.detach(), theirs["train_logits"])
    out["loss in training"] = _relative(given.loss.detach(), theirs["train_loss"])
    out["tokens per expert in training, differing"] = float((torch.stack(picked) - theirs["train_counts"]).abs().sum())
    return out | _gradients(model, {n.removeprefix("grad."): t for n, t in theirs.items() if n.startswith("grad.")})


def _counts(args: Any, model: Any) -> Tensor:
    """Count picks that carry weight; a forced expert's companions carry none."""
    _, experts_TK, weights_TK = args
    used = experts_TK[(weights_TK != 0) & (experts_TK < model.config.num_experts)]
    return torch.bincount(used.flatten(), minlength=model.config.num_experts)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def _gradients(model: Any, theirs: dict[str, Tensor]) -> dict[str, float]:
    """Return the worst relative difference of gradients by kind of parameter; every one must be there."""
    worst: dict[str, float] = {}
    left = set(theirs)
    for name, parameter in model.named_parameters():
        if not parameter.numel():
            continue
        stem, fused, part = name.partition(".experts.")
        kind = "experts" if fused else "router" if name.endswith("mlp.gate.weight") else "everything else"
        parts = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}.get(part, ())
        names = (
            [[f"{stem}.experts.{e}.{p}.weight" for p in parts] for e in range(len(parameter))] if fused else [[name]]
        )
        left -= {n for group in names for n in group}
        rows = [torch.cat([theirs[n] for n in group]) if all(n in theirs for n in group) else None for group in names]
        got = parameter.grad if fused else (None if parameter.grad is None else parameter.grad[None])
        for e, expected in enumerate(rows):
            ours = None if got is None else got[e]
            if expected is None or ours is None:  # no gradient there: none, or zero, here
                other = ours if expected is None else expected
                difference = 0.0 if other is None else other.abs().max().item()
            else:
                difference = _relative(ours, expected) if expected.abs().max() else ours.abs().max().item()
            worst[f"gradient, {kind}"] = max(worst.get(f"gradient, {kind}", 0.0), difference)
    return worst | {"gradients without a partner": float(len(left))}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    recorded = actions.add_parser("record")
    recorded.add_argument("code", type=Path)
    recorded.add_argument("folder", type=Path)
    recorded.add_argument("--width", choices=sorted(WIDTHS), default="toy")
    recorded.add_argument("--shared", action="store_true", help="the language-specific baseline")
    actions.add_parser("compare").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.action == "record":
        record(arguments.code, arguments.folder, arguments.width, arguments.shared)
        return
    figures = compare(arguments.folder)
    for name, figure in figures.items():
        print(f"{name:<44} {figure:.2e}")
    sys.exit(any(v > (BACKWARD_BOUND if n.startswith("gradient,") else BOUND) for n, v in figures.items()))


if __name__ == "__main__":
    main()
