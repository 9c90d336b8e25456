"""A server with OpenAI's interface as a model of lm-eval, and what can go wrong with one in one line each.

Requests are made by lm-eval's own classes. Choices are scored by echoed log-probabilities, which vLLM gives
and most chat servers do not, so one small request asks for them before anything else is asked. The key is read
from OPENAI_API_KEY and from nowhere else.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.api_models import JsonChatStr
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from polyclinic.errors import MissingDependencyError, PolyclinicError, UsageError
from polyclinic.evaluate.backends.local import load_tokenizer
from polyclinic.evaluate.backends.quiet import quiet_lm_eval
from polyclinic.runs import sha256_file

PROBE = ("Question: is water wet?\nAnswer:", " yes, it is")
BAD = "its answer is not in OpenAI's format"
REFUSED = "check model and max_length; to score choices a server must take echo with logprobs"
CLIENT_ERRORS = (401, 403, 404)
SERVER_ERRORS = 500


class Endpoint(NamedTuple):
    """Where a model is served, and how it is asked."""

    url: str  # such as http://localhost:8000/v1
    model: str
    tokenizer: Path | None = None  # a folder; scored choices need the model's own
    chat: bool = False
    concurrency: int = 8  # requests under way at once
    timeout: float = 300.0  # seconds for one answer
    tries: int = 3
    max_length: int = 32768  # tokens that the server takes; longer prompts lose their beginning

    @property
    def address(self) -> str:
        """Return where requests go; raises UsageError for what is no address, without repeating what it may hold."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("server", "is no http or https address", "give one such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UsageError("server", "its address holds more than host and path", "put the key into OPENAI_API_KEY")
        return self.url.rstrip("/") + ("/chat/completions" if self.chat else "/completions")

    def facts(self) -> dict[str, Any]:
        """Return what decides the answers beside the requests."""
        file = None if self.tokenizer is None else self.tokenizer / "tokenizer.json"
        return {
            "url": self.address,
            "model": self.model,
            "tokenizer": sha256_file(file) if file is not None and file.is_file() else None,
            "max_length": self.max_length,
            "versions": {"lm_eval": version("lm_eval")},
        }


class ServerError(PolyclinicError):
    """A server failed, stalled or cannot do what was asked; what was answered before is kept."""


class _Session:
    """A session that follows no redirect: questions go to the named host and to no other."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def post(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request."""
        return self._session.post(*args, allow_redirects=False, **kwargs)


class _Bounded:
    """Mixin over lm-eval's classes: bounded and straight requests, and faults in one line."""

    endpoint: Endpoint
    _slots: asyncio.Semaphore

    async def get_batched_requests(self, *args: Any, **kwargs: Any) -> Any:
        """Send requests, so many at a time."""
        self._slots = asyncio.Semaphore(self.endpoint.concurrency)
        return await super().get_batched_requests(*args, **kwargs)  # type: ignore[misc]

    async def amodel_call(self, session: Any, sem: Any, *args: Any, **kwargs: Any) -> Any:
        """Send one request."""
        return await super().amodel_call(_Session(session), self._slots, *args, **kwargs)  # type: ignore[misc]

    def loglikelihood(self, requests: Sequence[Instance], **kwargs: Any) -> Any:
        """Return nats and greediness of each request."""
        with faults(self.endpoint):
            return super().loglikelihood(requests, **kwargs)  # type: ignore[misc]

    def generate_until(self, requests: Sequence[Instance], **kwargs: Any) -> Any:
        """Return what is written after each request."""
        with faults(self.endpoint):
            return super().generate_until(requests, **kwargs)  # type: ignore[misc]


class _Completions(_Bounded, LocalCompletionsAPI):
    """Texts are continued; choices can be scored."""

    @staticmethod
    def parse_logprobs(outputs: Any, tokens: Any = None, ctxlens: Any = None, **kwargs: Any) -> Any:
        """Read log-probabilities; raises ValueError where the answer has none for some token."""
        answers = outputs if isinstance(outputs, list) else [outputs]
        choices = [choice for answer in answers for choice in answer["choices"]]
        if len(choices) != len(tokens):
            raise ValueError("not one choice for each prompt")
        for choice, sent in zip(sorted(choices, key=lambda c: c["index"]), tokens, strict=True):
            logprobs = choice.get("logprobs") or {}
            nats = logprobs.get("token_logprobs") or []
            if len(nats) != len(sent) + 1:
                raise NoLogprobs(f"{len(nats)} log-probabilities for {len(sent)} tokens")
            if not all(isinstance(nat, float | int) and math.isfinite(nat) for nat in nats[1:-1]):
                raise ValueError("a log-probability is no number")
        return LocalCompletionsAPI.parse_logprobs(outputs, tokens, ctxlens)

    @staticmethod
    def parse_generations(outputs: Any, **kwargs: Any) -> Any:
        """Read texts; raises ValueError where there is none."""
        texts = LocalCompletionsAPI.parse_generations(outputs)
        return _texts(texts)


class _Chat(_Bounded, LocalChatCompletion):
    """Prompts are put as the one message of a user."""

    def loglikelihood(self, requests: Sequence[Instance], **kwargs: Any) -> Any:
        """Refuse: chat has no log-probabilities of what was not written."""
        raise no_logprobs(self.endpoint)

    def generate_until(self, requests: Sequence[Instance], **kwargs: Any) -> Any:
        """Return what is answered to each prompt."""
        asked = []
        for request in requests:
            text, settings = request.args
            message = JsonChatStr(json.dumps([{"role": "user", "content": text}], ensure_ascii=False))
            asked.append(Instance(request.request_type, request.doc, (message, settings), request.idx))
        return super().generate_until(asked, **kwargs)

    def parse_generations(self, outputs: Any, **kwargs: Any) -> Any:
        """Read texts; raises ValueError where there is none."""
        answers = outputs if isinstance(outputs, list) else [outputs]
        return _texts([choice["message"]["content"] or "" for answer in answers for choice in answer["choices"]])


class NoLogprobs(ValueError):
    """An answer without the log-probabilities of its prompt."""


def _texts(texts: list[Any]) -> list[str]:
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("no text")
    return texts


def no_logprobs(endpoint: Endpoint) -> ServerError:
    """Return the error of a server that cannot score choices."""
    what = "gives no log-probabilities of a prompt (echo with logprobs), so choices cannot be scored"
    return ServerError(endpoint.address, what, "let the model write its answer, or serve it with vLLM")


def connect(endpoint: Endpoint, scores: bool) -> LM:
    """Return a model that asks a server, after one request that shows that it can be asked.

    `scores`: log-likelihoods will be asked for. Raises ServerError, UsageError, MissingDependencyError.
    """
    if scores and endpoint.chat:
        raise no_logprobs(endpoint)
    if scores and endpoint.tokenizer is None:
        raise UsageError("server", "choices are scored by tokens", "name the folder of the model's tokenizer")
    model = _client(endpoint)
    if scores:
        model.loglikelihood([Instance("loglikelihood", {}, PROBE, 0)])
    else:
        model.generate_until([Instance("generate_until", {}, (PROBE[0], {"until": ["\n"], "max_gen_toks": 1}), 0)])
    return model


def _client(endpoint: Endpoint) -> Any:
    kind = _Chat if endpoint.chat else _Completions
    settings: dict[str, Any] = {"model": endpoint.model, "base_url": endpoint.address, "max_retries": endpoint.tries}
    settings |= {"num_concurrent": max(2, endpoint.concurrency), "max_length": endpoint.max_length}
    try:
        with quiet_lm_eval():
            model: Any = kind(tokenizer_backend=None, **settings)
    except ModuleNotFoundError as err:
        what = "aiohttp, requests or tenacity is not installed"
        raise MissingDependencyError("server", what, "pip install 'polyclinic[server]'") from err
    model.endpoint, model.timeout = endpoint, endpoint.timeout
    if endpoint.tokenizer is not None and not endpoint.chat:
        model.tokenizer, model.tokenizer_backend = load_tokenizer(endpoint.tokenizer), "huggingface"
        model.tokenized_requests = True
        # lm-eval's class for transformers models adds what the tokenizer adds; the one for servers must be told.
        model.add_bos_token = model.tokenizer("a").input_ids != model.tokenizer("a", add_special_tokens=False).input_ids
    return model


@contextlib.contextmanager
def faults(endpoint: Endpoint) -> Iterator[None]:
    """Turn what servers do wrong into one line, without a word of what was asked."""
    import aiohttp

    try:
        with quiet_lm_eval():
            yield
    except NoLogprobs:
        raise no_logprobs(endpoint) from None
    except TimeoutError:
        raise _failed(endpoint, f"gave no answer within {endpoint.timeout:g} s") from None
    except aiohttp.ClientResponseError as err:
        raise _status(endpoint, err.status) from None
    except aiohttp.ClientError:
        raise _failed(endpoint, "cannot be reached or hung up") from None
    except (ValueError, TypeError, LookupError, AttributeError):
        raise _failed(endpoint, BAD) from None


def _status(endpoint: Endpoint, status: int) -> ServerError:
    if 300 <= status < 400:  # noqa: PLR2004
        return ServerError(endpoint.address, "sends requests elsewhere (redirect)", "name the address it points to")
    if status < 300:  # noqa: PLR2004 - what came was no JSON
        return _failed(endpoint, BAD)
    if status in CLIENT_ERRORS:
        return ServerError(endpoint.address, f"refuses (HTTP {status})", "check address, model and OPENAI_API_KEY")
    if status < SERVER_ERRORS:
        return ServerError(endpoint.address, f"refuses a request (HTTP {status})", REFUSED)
    return _failed(endpoint, f"failed (HTTP {status})")


def _failed(endpoint: Endpoint, what: str) -> ServerError:
    return ServerError(
        endpoint.address, f"{what}, {endpoint.tries} tries", "run again when it answers; answers are kept"
    )


def vllm(checkpoint: Path, **settings: Any) -> LM:
    """Return lm-eval's own model for vLLM, which runs in this process; raises MissingDependencyError without it."""
    if find_spec("vllm") is None:
        raise MissingDependencyError("vllm", "is not installed", "pip install 'polyclinic[vllm]'")
    from lm_eval.api.registry import get_model

    model: LM = get_model("vllm")(pretrained=str(checkpoint), **settings)
    return model
