"""Questions to a language model behind an OpenAI-compatible endpoint, many at once, each answered once.

Requests run at most `concurrency` at a time. One that fails for a passing reason (no connection, a
stall, 408, 409, 429, 5xx, an answer that is no JSON) is tried again after a growing, jittered pause
or as long as the server asks for. The text of questions and answers appears in no message and no log.
"""

import asyncio
import logging
import os
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from polyclinic.corpus.ask.answers import Answer, Answers
from polyclinic.corpus_section import EndpointSection
from polyclinic.errors import DataError, MissingDependencyError, PolyclinicError, RecipeError
from polyclinic.runs import digest

PASSING = (408, 409, 425, 429)  # and everything from 500 on
REFUSED = (400, 413, 422)  # this request is not to the server's liking; another may be
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_ASKED = 0.5, 30.0, 300.0  # seconds; the last is the most Retry-After gets
HOPELESS = 8  # refusals before any answer
SETTLED = 5  # tries in which an endpoint that was never reached has nothing to hope for
BAD_JSON, STALLED, UNREACHABLE = "answers that are no JSON completion", "no answer in time", "no connection"

Message = Mapping[str, str]
T = TypeVar("T")


class Unanswered(PolyclinicError):
    """The endpoint gave no answer in all tries."""


class Refused(Exception):
    """The endpoint does not take this request, whatever the time."""


class _Passing(Exception):
    """A failure that may pass; `pause` is what the server asked for, in seconds."""

    def __init__(self, what: str, pause: float | None = None) -> None:
        self.what, self.pause = what, pause
        super().__init__(what)


class Chat:
    """One endpoint, model and sampling, with the answers kept so far."""

    def __init__(self, section: EndpointSection, answers: Answers, concurrency: int | None = None) -> None:
        self._section, self._answers = section, answers
        self._concurrency = concurrency or section.concurrency
        self._key = _api_key(section)
        self._answered, self._refused = 0, 0

    def run(self, conversations: Sequence[Callable[["Chat"], Coroutine[Any, Any, T]]]) -> list[T]:
        """Hold all conversations, each a function of this chat; returns their results in order.

        Raises DataError if the endpoint refuses us, Unanswered if it does not answer; the answers
        that came are kept either way.
        """
        return asyncio.run(self._hold(conversations))

    async def _hold(self, conversations: Sequence[Callable[["Chat"], Coroutine[Any, Any, T]]]) -> list[T]:
        self._client, http = _client(self._section, self._key)
        self._slots = asyncio.Semaphore(self._concurrency)
        self._underway: dict[str, asyncio.Future[Answer]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(talk(self)) for talk in conversations]
        except BaseExceptionGroup as err:
            raise _first(err) from None
        finally:
            await http.aclose()
        return [task.result() for task in tasks]

    async def ask(self, messages: Sequence[Message], seed: int | None = None) -> Answer:
        """Return the answer to messages, from the store if they were answered before; raises Refused.

        Another seed is another request.
        """
        body = {**request(self._section), "messages": list(messages)}
        if seed is not None:
            body["seed"] = seed
        key = digest(body)
        kept = self._answers.get(key)
        if kept is not None:
            return kept
        if key not in self._underway:  # the same question twice in one batch is asked once
            self._underway[key] = asyncio.ensure_future(self._send(key, body))
            self._underway[key].add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._underway[key])

    async def _send(self, key: str, body: dict[str, Any]) -> Answer:
        async with self._slots:
            for tried in range(1, self._section.tries + 1):
                try:
                    answer = await self._once(body)
                except _Passing as err:
                    hopeless = err.what == UNREACHABLE and not self._answered and tried >= SETTLED
                    if tried == self._section.tries or hopeless:
                        what = f"{err.what}, {tried} tries"
                        raise Unanswered(self._section.base_url, what, "run again when it answers; answers are kept") \
                            from None  # fmt: skip
                    await asyncio.sleep(pause(tried, err.pause))
                else:
                    self._answered += 1
                    return self._answers.keep(key, answer)
        raise AssertionError("tries is at least one")

    async def _once(self, body: dict[str, Any]) -> Answer:
        """Send a request once; errors become ours, without a word of what was asked."""
        import openai

        try:
            async with asyncio.timeout(self._section.timeout_s):  # of the whole answer: one that trickles is cut, too
                found = await self._client.chat.completions.create(**body)
            return _answer(found)
        except (TimeoutError, openai.APITimeoutError):
            raise _Passing(f"{STALLED} ({self._section.timeout_s:g} s)") from None
        except openai.APIStatusError as err:
            raise self._status(err.status_code, err.response.headers) from None
        except openai.APIConnectionError:
            raise _Passing(UNREACHABLE) from None
        except (openai.OpenAIError, ValueError, AttributeError, TypeError, LookupError):
            raise _Passing(BAD_JSON) from None

    def _status(self, status: int, headers: Mapping[str, str]) -> Exception:
        if status in PASSING or status >= 500:  # noqa: PLR2004
            return _Passing(f"HTTP {status}", retry_after(headers))
        where = self._section.base_url
        if status in REFUSED:
            self._refused += 1
            if self._answered or self._refused < HOPELESS:
                return Refused(f"HTTP {status}")
            return DataError(where, f"refuses every request (HTTP {status})", "check model and sampling")
        hint = "the key in the variable that key_env names" if status in (401, 403) else "base_url and model"
        return DataError(where, f"refuses the request (HTTP {status})", f"check {hint}")


def request(section: EndpointSection) -> dict[str, Any]:
    """Return what a request says besides its messages; where it is sent and how long one waits is no part of it."""
    names = ("model", "temperature", "top_p", "frequency_penalty", "presence_penalty", "max_tokens")
    return {name: value for name in names if (value := getattr(section, name)) is not None}


def pause(tried: int, asked: float | None) -> float:
    """Return the seconds to wait after a failed try: as asked for, else twice as long each time, give or take half."""
    if asked is not None:
        return min(asked, LONGEST_ASKED) + random.uniform(0, FIRST_PAUSE)  # noqa: S311 - not all at the same moment
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (tried - 1)) * random.uniform(0.5, 1.5)  # noqa: S311


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, given as seconds or as a date."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _answer(found: Any) -> Answer:
    """Take an answer out of a completion; what is not as it should be raises an error that means bad JSON."""
    choice = found.choices[0]
    text = choice.message.content
    if not isinstance(text, str) or not text.strip():
        raise TypeError("no text")
    usage = found.usage
    tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)
    if not all(n is None or type(n) is int for n in tokens):
        raise TypeError("no counts")
    return Answer(text.strip(), str(choice.finish_reason or "stop"), *tokens)


def _api_key(section: EndpointSection) -> str:
    if section.key_env is None:
        return "none"  # the client wants one; servers of one's own mostly do not
    key = os.environ.get(section.key_env, "").strip()
    if not key:
        raise RecipeError("key_env", f"the environment variable {section.key_env} is not set", "set it to the key")
    return key


def _client(section: EndpointSection, key: str) -> tuple[Any, Any]:
    """Return the client and its connection pool; text goes to the named endpoint and nowhere else."""
    try:
        import openai
    except ImportError as err:
        what = "the package openai is not installed"
        raise MissingDependencyError(section.base_url, what, "pip install 'polyclinic[openai]'") from err
    for name in ("openai", "httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # below it, whole requests are logged
    limits = section.timeout_s
    http = openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=limits)
    client = openai.AsyncOpenAI(
        api_key=key, base_url=section.base_url, max_retries=0, timeout=limits, http_client=http,
        organization=None, project=None,
    )  # fmt: skip
    return client, http


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that a group of tasks stopped for; ours come before others."""
    found: list[BaseException] = []
    for err in group.exceptions:
        found.append(_first(err) if isinstance(err, BaseExceptionGroup) else err)
    return next((err for err in found if isinstance(err, PolyclinicError)), found[0])
