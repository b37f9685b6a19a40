"""What was said, out of a client's message list; what was shown, out of our log; both together as past turns.

The client's messages are the truth for the words. A past turn whose words are in the log gets its action and FAQs from
there; one that isn't stays *unknown* rather than NO_FETCH. White space around the words doesn't count: clients trim it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chat.errors import InvalidRequestError
from chat.ports import LoggedExchange
from chat.types import Message, PastTurn
from kb.types import Faq


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A message list, read."""

    operator: str
    """The client's own system messages, joined."""
    exchanges: tuple[tuple[str, str], ...]
    """(query, answer), oldest first."""
    query: str


def read_dialogue(messages: Sequence[Message]) -> Dialogue:
    """Messages as exchanges and a query. Neighbouring messages of one role are joined; an assistant's opening words, before
    any query, form an exchange with an empty query.

    Raises: InvalidRequestError when there is no message, or the last one isn't the user's, or it is blank.
    """
    spoken = [message for message in messages if message.role != "system"]
    if not spoken:
        raise InvalidRequestError("messages: expected at least one message of role user, got none", param="messages")
    if spoken[-1].role != "user":
        raise InvalidRequestError(f"messages: expected the last one from role user, got {spoken[-1].role}", param="messages")
    exchanges: list[tuple[str, str]] = []
    said: dict[str, list[str]] = {"user": [], "assistant": []}
    for message in spoken:
        if message.role == "user" and said["assistant"]:
            exchanges.append(("\n".join(said["user"]), "\n".join(said["assistant"])))
            said = {"user": [], "assistant": []}
        said[message.role].append(message.content)
    query = "\n".join(said["user"]).strip()
    if not query:
        raise InvalidRequestError("messages: expected text in the last user message, got only white space", param="messages")
    operator = "\n\n".join(message.content for message in messages if message.role == "system")
    return Dialogue(operator, tuple(exchanges), query)


def past_turns(
    exchanges: Sequence[tuple[str, str]], logged: Sequence[LoggedExchange], find_faq: Callable[[str], Faq | None]
) -> tuple[PastTurn, ...]:
    """Exchanges with what the log knows of each; an FAQ that was deleted since is left out.

    They are matched from the last back, each logged turn once: words that were said twice keep their own actions.
    """
    unclaimed = list(logged)
    turns: list[PastTurn] = []
    for query, answer in reversed(exchanges):
        record = _claim(unclaimed, query.strip(), answer.strip())
        turns.append(PastTurn(query, answer) if record is None else _known(query, answer, record, find_faq))
    return tuple(reversed(turns))


def _claim(unclaimed: list[LoggedExchange], query: str, answer: str) -> LoggedExchange | None:
    """The latest turn of these words, taken off the list with all that came after it."""
    for n in reversed(range(len(unclaimed))):
        if (unclaimed[n].query.strip(), unclaimed[n].answer.strip()) == (query, answer):
            record = unclaimed[n]
            del unclaimed[n:]
            return record
    return None


def _known(query: str, answer: str, record: LoggedExchange, find_faq: Callable[[str], Faq | None]) -> PastTurn:
    fetched = tuple(faq for faq in map(find_faq, record.fetched) if faq is not None)
    return PastTurn(query, answer, record.action, tuple(map(find_faq, record.hits)), fetched, record.cited)
