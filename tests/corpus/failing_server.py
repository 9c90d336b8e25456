"""A server that behaves as badly as servers do: it stalls, refuses, hangs up, babbles; then it answers.

Each new request meets the faults in turn, one a try, then gets its answer.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STALL = 30.0
BABBLE = {
    "json": (b'{"choices": [',),
    "page": (b"<html>busy</html>", "text/html"),
    "empty": (b'{"choices": []}',),
}


def reply(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    """Answer the last message: its last line, which tests make what they want to hear."""
    return messages[-1]["content"].rsplit("\n", 1)[-1]


class Badly(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, faults: list[str], answer: Any = reply, pause: float = 0.0, log: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.answer, self.pause, self.log = faults, answer, pause, log
        self.tries: dict[str, int] = {}
        self.bodies: list[dict[str, Any]] = []
        self.times: dict[str, list[float]] = {}
        self.headers: list[dict[str, str]] = []
        self.answered: list[str] = []
        self.now = self.most = 0
        self.finish, self.counts_tokens = "stop", True
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Badly

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key, server = json.dumps(body, sort_keys=True), self.server
        with server.lock:
            number = server.tries.get(key, 0)
            server.tries[key] = number + 1
            server.times.setdefault(key, []).append(time.monotonic())
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            fault = server.faults[number] if number < len(server.faults) else ""
            time.sleep(server.pause)
            self.misbehave(fault, body, key)
        finally:
            with server.lock:
                server.now -= 1

    def misbehave(self, fault: str, body: dict[str, Any], key: str) -> None:
        if fault == "stall":
            time.sleep(STALL)
        elif fault == "trickle":
            self.trickle()
        elif fault == "close":
            self.close_connection = True
        elif fault == "half":
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"ch')
            self.close_connection = True
        elif fault in BABBLE:
            self.send(200, *BABBLE[fault])
        elif fault.isdigit():
            self.send(int(fault), b'{"error": {"message": "' + body["messages"][-1]["content"].encode()[:40] + b'"}}')
        elif fault.startswith("wait"):
            self.send(429, b"{}", more={"Retry-After": fault.removeprefix("wait")})
        else:
            self.complete(body, key)

    def trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "100000")
        self.end_headers()
        for _ in range(int(STALL * 10)):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.1)

    def complete(self, body: dict[str, Any], key: str) -> None:
        text = self.server.answer(body["messages"], body)
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        choice = {"index": 0, "message": message, "finish_reason": self.server.finish}
        value = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        with self.server.lock:
            self.server.answered.append(key)
            if self.server.log:
                with self.server.log.open("a") as log:
                    log.write(json.dumps(key) + "\n")
        self.send(200, json.dumps({**value, "usage": usage if self.server.counts_tokens else None}).encode())

    def send(
        self, status: int, data: bytes, kind: str = "application/json", more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def serve(server: Badly) -> None:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
