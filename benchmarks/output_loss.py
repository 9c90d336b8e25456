"""Memory and time of the output loss, whole logits against pieces: `python benchmarks/output_loss.py`.

One head of Qwen2-0.5B's shape (hidden 896, 151,936 words) on 4,096 tokens, forward and backward. Each
round runs both in a process of its own, one after the other; peaks are of the resident set beyond
what stood before.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

HIDDEN, VOCABULARY, TOKENS, ROUNDS = 896, 151_936, 4096, 3


def measure(kind: str) -> None:
    """Run one forward and backward and print peak bytes and seconds."""
    import torch
    from torch import nn

    from polyclinic.train import loss

    torch.set_num_threads(2)
    torch.manual_seed(0)
    head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    states = torch.randn(1, TOKENS, HIDDEN, requires_grad=True)
    labels = torch.randint(VOCABULARY, (TOKENS,))
    head.weight.grad = torch.zeros_like(head.weight)
    if kind == "whole":
        loss.PIECE_BYTES = 1 << 60
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.perf_counter()
    loss._losses(head, labels, states).mean().backward()
    seconds = time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"mb": peak * 1024 / 1e6, "seconds": seconds}))


def main() -> None:
    """Interleave both and print medians."""
    found: dict[str, list[dict[str, float]]] = {"whole": [], "pieces": []}
    for _ in range(ROUNDS):
        for kind, seen in found.items():
            command = [sys.executable, __file__, kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
            seen.append(json.loads(done.stdout))
    for kind, seen in found.items():
        mb, seconds = (statistics.median(s[key] for s in seen) for key in ("mb", "seconds"))
        print(f"{kind:<8} {mb:8,.0f} MB beyond the weights, {seconds:6.1f} s")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
