"""The SDK's errors as LLMErrors: whether to try again, after how long, and what an operator should check.

Messages name neither the key nor the server's address; the server's own words are kept short, with the key struck out.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import openai

from chat.errors import LLMError

RETRY_UNLESS_TOLD_TO_WAIT = "x-should-retry"
"""The response header by which the SDK's retry loop is told not to wait."""
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})
"""Besides 5xx."""
WHAT_TO_CHECK = {
    400: "check the model's name, the length of the prompt and the options",
    401: "check the API key in the settings",
    403: "check that this API key may use this model",
    404: "check the model's name, and that the base URL is right (most end in /v1)",
    413: "the prompt is too long; show fewer FAQs or past turns",
    422: "check the options; the server knows fewer than were sent",
}
LONGEST_QUOTE = 300
"""Characters kept of the server's own words."""


def llm_error(error: openai.OpenAIError, model: str, api_key: str) -> LLMError:
    """What the SDK raised, as the error that the rest of the service knows."""
    match error:
        case openai.APITimeoutError():
            return LLMError("expected a connection to the LLM server, got none in time; try again, or check its address",
                            retryable=True)
        case openai.APIConnectionError():
            return LLMError("the LLM server can't be reached, or it broke off; try again, or check its address and that it runs",
                            retryable=True)
        case openai.APIStatusError():
            return _refusal(error, model, api_key)
        case openai.APIError():  # an error event within the stream
            return LLMError(f"the LLM server broke off with an error: {_quote(error.message, api_key)}", retryable=True)
        case _:
            return LLMError(f"the LLM can't be asked ({type(error).__name__}); check its settings", retryable=False)


def refuses_stream_options(error: openai.OpenAIError) -> bool:
    """Whether a refusal may be for `stream_options`: it names that, or no parameter at all."""
    if not isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        return False
    return not error.param or error.param.startswith("stream_options")


def told_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date; None without it, or when it makes no sense."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        date = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _refusal(error: openai.APIStatusError, model: str, api_key: str) -> LLMError:
    status = error.status_code
    quote = _quote(_words(error), api_key)
    if status >= 500 or status in RETRYABLE_STATUSES:
        what = "is asked too often" if status == 429 else "fails"
        return LLMError(f"the LLM server {what} (status {status}: {quote}); try again later", retryable=True,
                        retry_after=told_to_wait(error.response.headers))
    check = WHAT_TO_CHECK.get(status, "check the LLM's settings")
    return LLMError(f"the LLM server refused a request for the model {model!r} (status {status}: {quote}); {check}",
                    retryable=False)


def _words(error: openai.APIStatusError) -> str:
    """The server's own message, out of the shapes in which servers give one."""
    body = error.body
    if isinstance(body, Mapping):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    return str(body) if body else "no message"


def _quote(words: str, api_key: str) -> str:
    """Words on one line, cut to length, without the key."""
    line = " ".join(words.split())
    if api_key:
        line = line.replace(api_key, "…")
    return line if len(line) <= LONGEST_QUOTE else f"{line[:LONGEST_QUOTE]}…"
