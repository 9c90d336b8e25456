"""Bad checkpoints: one line on stderr, the exit code, nothing written, nothing run, the input as it was.

Numbers in front are those of the list of bad inputs, 59 to 74; every row goes through the command line.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from damage import (
    CONFIG,
    INDEX,
    LINE,
    WORDS,
    Edit,
    configured,
    headed,
    indexed,
    larger_tokenizer,
    of_norm,
    pointed,
    refusal,
    replaced,
    sharded,
    tensors,
    trapped,
    weights,
    written,
)
from polyclinic.cli import main

BUILD = ["upcycle", "build", "dense", "out"]
IMPORT = ["upcycle", "import-apollo", "pub", "out"]
VERIFY = ["upcycle", "verify", "dense", "moe"]
UP, EXPERT = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.experts.3.up_proj.weight"


pytestmark = pytest.mark.usefixtures("copies")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "59 nothing in it": lambda data: b"",
    "59 half of it": lambda data: data[: len(data) // 2],
    "59 one byte short": lambda data: data[:-1],
    "59 one byte more": lambda data: data + b"\0",
    "66 a header of 2**64 - 1 bytes": lambda data: b"\xff" * 8 + data[8:],
    "66 a header of 200 MB": lambda data: struct.pack("<Q", 200_000_000) + data[8:],
    "66 a header that is no JSON": headed(lambda header: b"{not JSON"),
    "62 a dtype that is none": of_norm(dtype="F33"),
    "61 a shape larger than its data": of_norm(shape=[10**6, 10**6]),
    "61 a shape beyond 64 bits": of_norm(shape=[2**62, 2**62]),
    "61 a shape below zero": of_norm(shape=[-1]),
    "65 data of another tensor": of_norm(data_offsets=[0, 128]),
    "65 data beyond the end": of_norm(data_offsets=[10**12, 10**12 + 128]),
}
TARGETS = {
    "build": (BUILD, "dense"),
    "import-apollo": (IMPORT, "pub"),
    "verify, the parent": (VERIFY, "dense"),
    "verify, the mixture": (VERIFY, "moe"),
}


EVERYWHERE = ("59 nothing in it", "59 half of it", "66 a header of 200 MB", "65 data beyond the end")


@pytest.mark.parametrize(
    ("damage", "target"),
    [(damage, target) for damage in DAMAGE for target in TARGETS if target == "build" or damage in EVERYWHERE],
)
def test_a_damaged_weight_file_is_named_and_4(damage: str, target: str, capfd: pytest.CaptureFixture[str]) -> None:
    argv, name = TARGETS[target]
    path = weights(name)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    code, line = refusal(argv, capfd)
    assert (code, line) == (4, f"error: {path}: is damaged or not safetensors; fetch it again\n")


ELSEWHERE = "names a file elsewhere"
GONE = "the index names it, it is not there"
UNPICKLED = "holds no safetensors weights; convert it"
PARENT: dict[str, tuple[Edit, str]] = {
    "59 missing shard": (lambda: (sharded(), Path("dense/part-1.safetensors").unlink()), f"part-1.safetensors: {GONE}"),
    "60 index names an absent file": (indexed(lambda m: m.update({UP: "part-7"})), f"dense/part-7: {GONE}"),
    "60 index names an absent tensor": (indexed(lambda m: m.update({"one": "part-0.safetensors"})), "agree on 'one'"),
    "60 index leaves a tensor out": (indexed(lambda m: m.pop(UP)), f"index and shards disagree on '{UP}'"),
    "60 index names the parent folder": (pointed("../elsewhere/part-0.safetensors"), ELSEWHERE),
    "60 index names another folder": (pointed("HERE/elsewhere/part-0.safetensors"), ELSEWHERE),
    "60 index names its folder": (pointed("."), ELSEWHERE),
    "60 index names nothing": (pointed(""), ELSEWHERE),
    "60 index names NUL": (pointed("a\0b"), GONE),
    "60 index without a map": (lambda: (sharded(), written(INDEX, "{}")()), "no weight_map"),
    "60 index that is cut short": (lambda: (sharded(), written(INDEX, '{"w')()), "cannot be read"),
    "61 shape other than the config's": (tensors(lambda t: t.update({UP: t[UP].T.contiguous()})), f"{UP} has shape"),
    "61 config other than the shape": (configured(intermediate_size=48), "[32, 40], its config says [32, 48]"),
    "61 more layers than tensors": (configured(num_hidden_layers=4, layer_types=None), "missing keys: model.layers.3"),
    "61 fewer layers than tensors": (configured(num_hidden_layers=2, layer_types=None), "unexpected keys: model.lay"),
    "61 larger vocabulary than rows": (configured(vocab_size=301), "model.embed_tokens.weight has shape [300, 32]"),
    "62 fp64": (tensors(lambda t: t.update({UP: t[UP].double()})), f"{UP} has dtype F64; give fp32"),
    "62 integers": (tensors(lambda t: t.update({UP: t[UP].long()})), f"{UP} has dtype I64; give fp32"),
    "62 fp8": (tensors(lambda t: t.update({UP: t[UP].to(torch.float8_e4m3fn)})), f"{UP} has dtype F8_E4M3"),
    "63 missing tensor": (tensors(lambda t: t.pop(UP)), f"missing keys: {UP}"),
    "63 extra tensor": (tensors(lambda t: t.update(more=torch.ones(1))), "unexpected keys: more"),
    "63 tied head that differs": (tensors(lambda t: t.update({"lm_head.weight": torch.ones(300, 32)})), "that differ"),
    "64 NaN": (tensors(lambda t: t[UP][-1, -1:].fill_(float("nan"))), f"tensors: {UP} holds NaN"),
    "64 infinity": (tensors(lambda t: t[UP][0, :1].fill_(float("-inf"))), f"{UP} holds NaN or infinity"),
    "67 .bin only": (trapped("pytorch_model.bin"), UNPICKLED),
    "67 .pt and .pth only": (trapped("model.pt", "model.pth", "consolidated.00.pth"), UNPICKLED),
    "67 index of .bin only": (trapped("part-00001.bin", "pytorch_model.bin.index.json"), UNPICKLED),
    "67 pickle called safetensors": (trapped("model.safetensors"), "is damaged or not safetensors"),
    "67 pickle in the index": (lambda: (pointed("x.bin")(), trapped("x.bin", instead=False)()), "x.bin: is damaged"),
    "67 pickle called config.json": (trapped("config.json", instead=False), f"{CONFIG}: cannot be read"),
    "68 auto_map": (configured(auto_map={"AutoModel": "modeling.Mine"}), "wants to run code of its own (auto_map)"),
    "68 auto_map that is empty": (configured(auto_map=None), "wants to run code of its own (auto_map)"),
    "69 tokenizer larger than the embedding": (larger_tokenizer, "largest id 300 has no row in an embedding of 300"),
    "69 tokenizer cut short": (written(WORDS, '{"model":'), f"{WORDS}: cannot be read"),
    "69 tokenizer not UTF-8": (written(WORDS, b"\xff\xfe"), f"{WORDS}: cannot be read"),
    "72 config.json cut short": (written(CONFIG, '{"model_type": "qw'), f"{CONFIG}: cannot be read"),
    "72 config.json empty": (written(CONFIG, ""), f"{CONFIG}: cannot be read"),
    "72 config.json not UTF-8": (written(CONFIG, b'{"model_type": "\xe9"}'), f"{CONFIG}: cannot be read"),
    "72 config.json a list": (written(CONFIG, "[]"), f"{CONFIG}: is not a JSON object"),
    "72 a number of 5000 digits": (written(CONFIG, f'{{"a": {"9" * 5000}}}'), "cannot be read"),
    "72 no config.json": (replaced(CONFIG, lambda p: None), "holds no config.json"),
    "72 no weights": (lambda: weights("dense").unlink(), "holds no safetensors weights"),
    "72 config.json a FIFO": (replaced(CONFIG, os.mkfifo), "holds no config.json"),
    "72 config.json a folder": (replaced(CONFIG, Path.mkdir), "holds no config.json"),
    "72 weights a FIFO": (replaced("dense/model.safetensors", os.mkfifo), "holds no safetensors weights"),
    "72 weights a folder": (replaced("dense/model.safetensors", Path.mkdir), "holds no safetensors weights"),
    "73 LoRA": (lambda: Path(CONFIG).rename("dense/adapter_config.json"), "holds no config.json"),
    "74 a mixture already": (configured(model_type="qwen2_moe"), "it is a mixture already; give a dense parent"),
    "74 gemma": (configured(model_type="gemma2"), "no blueprint for model_type 'gemma2': its norms"),
    "74 no model_type": (configured(model_type=None), "no blueprint for model_type 'None'"),
    "74 a model_type with line breaks": (configured(model_type="a\nb\r\nc"), "no blueprint for model_type 'a b c'"),
    "74 half a character": (configured(model_type="\ud800"), "no blueprint for model_type"),
    "69 tokenizer a folder": (replaced(WORDS, Path.mkdir), f"{WORDS}: is no file"),
    "69 tokenizer a FIFO": (replaced(WORDS, os.mkfifo), f"{WORDS}: is no file"),
    "70 chat template a folder": (replaced("dense/chat_template.jinja", Path.mkdir), "chat_template.jinja: is no file"),
    "72 a key twice": (written(CONFIG, '{"a": 1, "a": 1}'), f"{CONFIG}: cannot be read ('a' stands twice)"),
    "72 brackets without end": (written(CONFIG, "[" * 100_000), f"{CONFIG}: cannot be read (RecursionError)"),
    "72 a number that is none": (configured(rms_norm_eps=float("nan")), f"{CONFIG}: cannot be read (NaN is no JSON)"),
    "72 a share of a head as text": (configured(partial_rotary_factor="x"), "turns only x of each head"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "words"), PARENT.values(), ids=PARENT)
def test_a_parent_that_cannot_be_used_is_4(edit: Edit, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    edit()
    code, line = refusal(BUILD, capfd)
    assert (code, words in line) == (4, True), line


def said(**values: Any) -> Edit:
    """Change what a mixture says of itself."""

    def edit() -> None:
        path = Path("moe/polyclinic.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


MIXTURE: dict[str, tuple[Edit, str]] = {
    "63 expert's tensor missing": (tensors(lambda t: t.pop(EXPERT), "moe"), "on 'model.layers.1.mlp.experts.3"),
    "61 more experts than tensors": (configured("moe", num_experts=8), "moe: missing keys: model.layers.1.mlp.exp"),
    "61 fewer experts than tensors": (configured("moe", num_experts=6), "moe: unexpected keys: model.layers.1.mlp"),
    "61 another layer sparse": (configured("moe", mlp_only_layers=[1]), "moe: missing keys: model.layers.0.mlp"),
    "61 another layer dense": (configured("moe", mlp_only_layers=[0, 1]), "moe: missing keys: model.layers.1.mlp"),
    "65 flipped bit": (tensors(lambda t: t[EXPERT].view(torch.int32)[5, 5].bitwise_xor_(1), "moe"), f"{EXPERT} is no"),
    "64 NaN": (tensors(lambda t: t[EXPERT][0].fill_(float("nan")), "moe"), "moe: "),
    "68 auto_map": (configured("moe", auto_map={}), "moe: wants to run code of its own (auto_map)"),
    "71 newer format": (said(format=2), "moe/polyclinic.json: is of format 2, this release reads 1"),
    "71 format of a word": (said(format="1"), "is of format 1, this release reads 1"),
    "72 family map cut short": (written("moe/polyclinic.json", "{"), "moe/polyclinic.json: cannot be read"),
    "74 a stranger's child": (tensors(lambda t: t["model.norm.weight"].add_(1), "moe"), "differ from the parent by"),
    "74 another width": (configured("moe", hidden_size=64), "moe: hidden_size is not that of dense; give"),
    "74 no mixture": (lambda: (shutil.rmtree("moe"), shutil.copytree("dense", "moe")), "moe: not a mixture beside"),
    "74 no folder": (lambda: shutil.rmtree("moe"), "moe: holds no config.json"),
    "27 top-k of none": (configured("moe", num_experts_per_tok=0), "not a mixture (2 sparse layers, 0 of 7 experts"),
    "61 no sparse layers": (configured("moe", mlp_only_layers=[0, 1, 2]), "moe: not a mixture (0 sparse layers"),
    "61 layers as a number": (configured("moe", mlp_only_layers=5), "refused by the stock classes"),
    "61 experts as text": (configured("moe", num_experts="x"), "refused by the stock classes"),
    "71 lineage as a list": (said(made=[]), "moe: not a mixture ("),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "words"), MIXTURE.values(), ids=MIXTURE)
def test_a_mixture_that_is_not_proven_is_4(edit: Edit, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    edit()
    code, line = refusal(VERIFY, capfd)
    assert (code, words in line) == (4, True), line


ADOPTED: dict[str, tuple[Edit, int, str]] = {
    "27 top-k above experts": (configured("pub", num_experts_per_tok=8), 4, "num_experts_per_tok 8 of 7 experts"),
    "28 no grouping of that number": (configured("pub", num_experts=6), 3, "no published grouping has 6 experts"),
    "61 experts counted as none": (configured("pub", num_experts=0), 4, "its config does not count them"),
    "61 a shape that lies": (configured("pub", intermediate_size=48), 4, "[32, 40], its config says [32, 48]"),
    "63 missing tensor": (tensors(lambda t: t.pop(EXPERT), "pub"), 4, f"missing keys: {EXPERT}"),
    "63 extra tensor": (tensors(lambda t: t.update(more=torch.ones(1)), "pub"), 4, "unexpected keys: more"),
    "64 NaN": (tensors(lambda t: t[EXPERT][0].fill_(float("nan")), "pub"), 4, f"{EXPERT} holds NaN or infinity"),
    "74 a stock model": (configured("pub", model_type="qwen2_moe"), 4, "model_type is 'qwen2_moe', not 'upcycling"),
    "74 no experts": (lambda: shutil.copy("dense/model.safetensors", "pub"), 4, "holds no experts"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "code", "words"), ADOPTED.values(), ids=ADOPTED)
def test_a_published_folder_that_cannot_be_read_is_refused(
    edit: Edit, code: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    edit()
    found, line = refusal(IMPORT, capfd)
    assert (found, words in line) == (code, True), line


# Any damage

ODD = (None, "x", -1, 0, 3, 2.5, True, [], [0], {}, {"a": 1}, "", float("inf"))
ANY = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ends_well(argv: list[str], capfd: pytest.CaptureFixture[str]) -> int:
    """Run a command that may fail, if in one line and with 4; returns its code."""
    capfd.readouterr()
    code = main(argv)
    said = capfd.readouterr()
    assert code in (0, 4), said.err
    assert (said.err == "") if code == 0 else LINE.fullmatch(said.err)
    return code


@given(data=st.data())
@ANY
def test_no_value_of_a_config_is_a_fault_of_ours(data: st.DataObject, capfd: pytest.CaptureFixture[str]) -> None:
    original = Path(CONFIG).read_text()
    config = json.loads(original)
    config[data.draw(st.sampled_from(sorted(config)))] = data.draw(st.sampled_from(ODD))
    Path(CONFIG).write_text(json.dumps(config))
    ends_well(["upcycle", "build", "dense", "--dry-run"], capfd)
    Path(CONFIG).write_text(original)


@given(data=st.data())
@ANY
def test_no_byte_of_a_header_is_a_fault_of_ours(data: st.DataObject, capfd: pytest.CaptureFixture[str]) -> None:
    path = Path("dense/model.safetensors")
    original = path.read_bytes()
    (size,) = struct.unpack("<Q", original[:8])
    place = data.draw(st.integers(0, 7 + size))
    changed = bytes([original[place] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(original[:place] + changed + original[place + 1 :])
    code = ends_well(BUILD, capfd)
    assert {p.name for p in Path().iterdir()} - {"dense", "moe", "pub"} == ({"out"} if code == 0 else set())
    shutil.rmtree("out", ignore_errors=True)
    path.write_bytes(original)


def test_every_row_of_the_list_has_its_test() -> None:
    numbers = {int(name.split()[0]) for name in [*DAMAGE, *PARENT, *MIXTURE, *ADOPTED]}
    # 70 is no fault here: a parent without a chat template gives a mixture without one.
    assert numbers >= {*range(59, 75)} - {70}
