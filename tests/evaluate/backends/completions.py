"""A server in OpenAI's format whose completions come from a small model, with faults when told."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from polyclinic.moe.checkpoint import load_model

STALL = 5.0


class Served(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = load_model(checkpoint).eval()
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self.lock = threading.Lock()
        self.be("good")
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def be(self, mode: str, after: int = 0) -> None:
        """Behave so, after so many good answers; forget what was asked."""
        self.mode, self.after = mode, after
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.tries: dict[str, int] = {}
        self.now = self.most = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @torch.no_grad()
    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Continue the prompt greedily; echo it with log-probabilities where asked."""
        prompt = body["prompt"]
        prompt = prompt[0] if isinstance(prompt[0], list) else prompt
        tokens = self.tokenizer.encode(prompt).ids if isinstance(prompt, str) else list(prompt)
        length, stops = len(tokens), body.get("stop") or []
        for _ in range(body["max_tokens"]):
            tokens.append(int(self.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
            if any(stop in self.tokenizer.decode(tokens[length:]) for stop in stops):
                break
        text = self.tokenizer.decode(tokens[length:])
        for stop in stops:
            text = text.split(stop)[0]
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": "length", "logprobs": None}
        if body.get("echo") and self.mode != "no logprobs":
            nats = self.model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
            own = [None, *(nats[i - 1, token].item() for i, token in enumerate(tokens) if i)]
            best = [None, *({str(int(row.argmax())): row.max().item()} for row in nats[:-1])]
            choice["logprobs"] = {"token_logprobs": own, "top_logprobs": best, "tokens": [str(t) for t in tokens]}
        return {"object": "text_completion", "model": body["model"], "choices": [choice]}

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer the last message."""
        found = self.complete({**body, "prompt": body["messages"][-1]["content"]})
        message = {"role": "assistant", "content": found["choices"][0]["text"]}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Served

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        text, server = self.rfile.read(int(self.headers["Content-Length"])).decode(), self.server
        body = json.loads(text)
        with server.lock:
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            tried = server.tries[text] = server.tries.get(text, 0) + 1
            bad = len(server.bodies) > server.after
        try:
            self.answer(server.mode if bad else "good", tried, body)
        except OSError:
            self.close_connection = True  # the client hung up

    def answer(self, mode: str, tried: int, body: dict[str, Any]) -> None:
        if mode == "stall":
            time.sleep(STALL)
        elif mode == "trickle":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            for _ in range(50):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        if mode == "hang up":
            self.close_connection = True
        elif mode.isdigit() or (mode == "500 then good" and tried == 1):
            self.send(int(mode[:3]), b'{"error": {"message": "secret words"}}')
        elif mode == "redirect":
            self.send(307, b"{}", {"Location": "http://127.0.0.1:9/v1/completions"})
        elif mode in FAULTS:
            self.send(200, FAULTS[mode])
        else:
            with self.server.lock:
                self.server.now += 1
                self.server.most = max(self.server.most, self.server.now)
            time.sleep(0.01)
            chat = self.path.endswith("/chat/completions")
            found = self.server.chat(body) if chat else self.server.complete(body)
            with self.server.lock:
                self.server.now -= 1
            self.send(200, json.dumps(found).encode())

    def send(self, status: int, data: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        kind = "text/html" if data.startswith(b"<") else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


FAULTS = {
    "bad JSON": b'{"choices": [',
    "page": b"<html>busy</html>",
    "no choices": b'{"choices": []}',
    "no object": b"[]",
    "null": b"null",
    "odd choice": b'{"choices": [{"index": 0, "logprobs": {"token_logprobs": "none", "top_logprobs": 1}}]}',
}
