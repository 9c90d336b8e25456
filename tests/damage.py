"""Small models for the commands of upcycle, what can be done to them, and how a command must refuse them."""

import json
import os
import pickle
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

import small
from polyclinic.cli import main

LINE = re.compile(r"error: (?P<where>\S.*?): (?P<what>\S.*); (?P<try>\S.*)\n")
CONFIG, INDEX, WORDS = (f"dense/{name}.json" for name in ("config", "model.safetensors.index", "tokenizer"))
PUBLISHED = {"model_type": "upcycling-qwen2-moe", "share_flag": False, "language_gate": True, "auto_map": {"A": "x.Y"}}
Edit = Callable[[], object]


def make_models(root: Path) -> Path:
    """Make a dense parent, its mixture `moe`, and `pub`, as a published Apollo-MoE lies there; once a session."""
    if root.is_dir():
        return root
    (root / "words").mkdir(parents=True)
    small.dense(root / "dense", small.tokenizer(root / "words"), "qwen2")
    apollo = ["--families", "apollo", "--unnormalised"]
    for name, options in (("moe", ["--shared-expert"]), ("pub", apollo)):
        assert main(["upcycle", "build", str(root / "dense"), str(root / name), *options]) == 0
        (root / name / "manifest.json").unlink()
    pub = root / "pub"
    for name in ("polyclinic.json", "model.safetensors.index.json"):
        (pub / name).unlink()
    (file,) = pub.glob("*.safetensors")
    save_file({n: t for n, t in load_file(file).items() if "shared" not in n}, pub / "model.safetensors")
    file.unlink()
    config = json.loads((pub / "config.json").read_text())
    (pub / "config.json").write_text(json.dumps(config | PUBLISHED))
    return root


def listing() -> dict[str, tuple[int, int]]:
    stats = {str(p): p.lstat() for p in Path().rglob("*")}
    return {name: (s.st_size, s.st_mtime_ns) for name, s in stats.items()}


def refusal(argv: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command that must fail and change nothing; returns its exit code and its one line."""
    capfd.readouterr()
    before = listing()
    code = main(argv)
    said = capfd.readouterr()
    assert said.out == ""
    assert LINE.fullmatch(said.err), said.err
    assert listing() == before
    assert ".work-" not in said.err
    return code, said.err


def configured(name: str = "dense", **values: Any) -> Edit:
    def edit() -> None:
        path = Path(name, "config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def written(path: str, content: str | bytes) -> Edit:
    return lambda: Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def weights(name: str) -> Path:
    (path,) = Path(name).glob("*.safetensors")
    return path


def tensors(change: Callable[[dict[str, Tensor]], object], name: str = "dense") -> Edit:
    def edit() -> None:
        found = load_file(weights(name))
        change(found)
        save_file(found, weights(name), metadata={"format": "pt"})

    return edit


def headed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Change the header of a weight file and leave its data."""

    def edit(data: bytes) -> bytes:
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        text = change(header) or header
        head = text if isinstance(text, bytes) else json.dumps(text).encode()
        return struct.pack("<Q", len(head)) + head + data[8 + size :]

    return edit


def of_norm(**values: Any) -> Callable[[bytes], bytes]:
    return headed(lambda header: header["model.norm.weight"].update(values))


def sharded() -> dict[str, Any]:
    """Cut the parent into two files with an index; returns the index."""
    found = load_file(weights("dense"))
    weights("dense").unlink()
    parts = [sorted(found)[::2], sorted(found)[1::2]]
    for i, names in enumerate(parts):
        save_file({n: found[n] for n in names}, f"dense/part-{i}.safetensors", metadata={"format": "pt"})
    index = {"weight_map": {n: f"part-{i}.safetensors" for i, names in enumerate(parts) for n in names}}
    Path(INDEX).write_text(json.dumps(index))
    return index


def indexed(change: Callable[[dict[str, str]], object]) -> Edit:
    def edit() -> None:
        index = sharded()
        change(index["weight_map"])
        Path(INDEX).write_text(json.dumps(index))

    return edit


def pointed(place: str) -> Edit:
    """Let the index name another place for one part, which is there."""

    def change(names: dict[str, str]) -> None:
        Path("elsewhere").mkdir()
        shutil.copy("dense/part-0.safetensors", "elsewhere/part-0.safetensors")
        for name in [n for n, part in names.items() if part == "part-0.safetensors"]:
            names[name] = place.replace("HERE", str(Path().absolute()))

    return indexed(change)


class _Trap:
    """What a pickle can do to whoever reads it: make a folder, which `refusal` would find."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trapped",)


def trapped(*names: str, instead: bool = True) -> Edit:
    def edit() -> None:
        if instead:
            weights("dense").unlink()
        for name in names:
            Path("dense", name).write_bytes(pickle.dumps(_Trap()))

    return edit


def replaced(path: str, make: Callable[[Path], object]) -> Edit:
    def edit() -> None:
        Path(path).unlink(missing_ok=True)
        make(Path(path))

    return edit


def larger_tokenizer() -> None:
    path = Path(WORDS)
    value = json.loads(path.read_text())
    value["model"]["vocab"]["one-more"] = small.VOCABULARY
    path.write_text(json.dumps(value))
