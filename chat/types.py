"""The values of a turn: messages in, state and decision, usage and log record out.

All are frozen. Leaves out how they are rendered (`prompt.py`), counted (`tokens.py`) and stored (`log/`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from kb.types import Faq

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as said or as sent to an LLM."""

    role: Role
    content: str


class Action(StrEnum):
    """What was done about fetching in a turn. A policy takes FETCH or NO_FETCH; STATIC is no action of the policy."""

    FETCH = "FETCH"
    NO_FETCH = "NO_FETCH"
    STATIC = "STATIC"


@dataclass(frozen=True, slots=True)
class PastTurn:
    """An earlier exchange of the conversation: what was said is the client's, the rest is from our log."""

    query: str
    answer: str
    action: Action | None = None
    """None: unknown, the turn isn't in our log (the conversation began elsewhere)."""
    hits: tuple[Faq | None, ...] = ()
    """What FETCH would have shown for it, best first; None in the place of an FAQ that was deleted since."""
    fetched: tuple[Faq, ...] = ()
    """What was put before the LLM for it (FETCH), or answered with (STATIC)."""
    cited: tuple[str, ...] = ()
    """Ids of the FAQs that its answer cites."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What retrieval says about the current query; every field is known before the action is taken."""

    top1_similarity: float | None
    """None: nothing was found above `min_similarity`."""
    margin: float | None
    """Top-1 similarity less top-2's; None with fewer than two hits."""
    top1_in_prompt: bool
    """The best FAQ stands in the prompt already, from an earlier turn."""
    turns_since_fetch: int | None
    """0: the turn before fetched; None: no turn that is known did."""
    last_similarity: float | None = None
    """Of the last FAQ that a fetch would show; with top-1's, how far the search is from one clear answer."""
    prompt_similarity: float | None = None
    """Cosine of the query to the nearest FAQ that stands in the prompt already; None: none stands there."""
    prompt_faqs: int = 0
    """FAQs that stand in the prompt already."""
    fetched_in_prompt: int = 0
    """Of those that a fetch would show, how many stand there."""
    fetch_characters: int = 0
    """Length of the FAQ text that a fetch would add: what it costs, before a tokenizer is chosen."""
    previous_similarity: float | None = None
    """Cosine of the query to the query before; None: there is none."""
    joined_top1_similarity: float | None = None
    """Of the nearest FAQ to the query and the one before, taken together."""
    joined_top1_in_prompt: bool = False
    """That FAQ stands in the prompt already."""
    joined_prompt_similarity: float | None = None
    """As `prompt_similarity`, of both queries taken together."""
    joined_top1_same: bool = False
    """The query alone has the same nearest FAQ."""


@dataclass(frozen=True, slots=True)
class State:
    """What a policy reads: DESIGN.md's `q(t-2) a(t-2) q(t-1) a(t-1) q(t)`."""

    previous_queries: tuple[str, ...]
    """Oldest first, two by default."""
    previous_actions: tuple[Action | None, ...]
    """One for each previous query; None is an unknown action, not NO_FETCH."""
    query: str
    evidence: Evidence | None
    """None: retrieval failed or wasn't run."""

    def __post_init__(self) -> None:
        if len(self.previous_queries) != len(self.previous_actions):
            raise ValueError(f"expected one action for each previous query, got {len(self.previous_actions)} "
                             f"for {len(self.previous_queries)}")


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and how it came about."""

    action: Action
    fetch_probability: float
    """The policy's mean probability of FETCH, in [0, 1]."""
    uncertainty: float
    """Spread of that probability over MC dropout samples (standard deviation); 0 for a rule."""
    behavior_prob: float
    """Probability with which the serving policy, exploration included, takes this action in this state: in (0, 1]."""
    policy_version: str
    reason: str
    """For people: why, in a few words."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.fetch_probability <= 1.0:
            raise ValueError(f"fetch_probability: expected 0..1, got {self.fetch_probability}")
        if not 0.0 < self.behavior_prob <= 1.0:
            raise ValueError(f"behavior_prob: expected 0 < p <= 1, got {self.behavior_prob}")


UsageSource = Literal["server", "model", "local", "none"]
"""Who counted: the LLM server, the model's own tokenizer, our tokenizer, or nobody since no LLM was called."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one LLM call."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None = None
    """Part of the input that the server had cached; None: it didn't say."""
    source: UsageSource = "server"


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """What the same turn would have cost under an always-fetch setting, given the answers that were given."""

    baseline: str
    """Name of the setting: `always_fetch` is the serving one, `paper` is MEASURES.md's."""
    input_tokens: int
    output_tokens: int
    output_method: Literal["same_answer", "static_answer"]
    """How the output was estimated: as long as the answer given, or as long as the static answer."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Generation options; None leaves the LLM's own default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


FinishReason = Literal["stop", "length", "content_filter", "cancelled", "error"]
Where = Literal["input", "output"]
"""Which side of a turn a filter looks at: what was asked, or what was answered."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a filter let a query or an answer not pass."""

    where: Where
    category: str
    """What kind of harm, as `chat/data/filters.json` names it."""
    filter: str
    """The version of the filter that refused."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One logged turn; append-only once written."""

    id: str
    conversation_id: str
    owner: str
    """Whose conversation it is: the id of the API key, `local` without keys."""
    created_at: datetime
    """UTC, when the request came."""
    query: str
    answer: str
    state: State
    decision: Decision
    """For STATIC: behavior_prob 1, kept out of the policy's loss and propensities."""
    hits: tuple[tuple[str, float], ...]
    """(FAQ id, similarity), best first: what FETCH shows."""
    fetched: tuple[str, ...]
    """FAQ ids put before the LLM in this turn, or the static answer's."""
    shown: tuple[str, ...]
    """All FAQ ids that stood in the prompt, those of earlier turns included."""
    cited: tuple[str, ...]
    usage: Usage
    """Of the answer, and of the rewriting of its query where there was one."""
    counterfactuals: tuple[Counterfactual, ...]
    model: str
    prompt_version: str
    kb_version: str
    price: "Price | None"
    """The LLM's at the time of the turn, also where an FAQ answered in its place; None: unknown."""
    latency_ms: Mapping[str, float]
    """By stage: recall, retrieve, decide, prompt; generate, from the first token to the last; first_token and total, since the
    request came; rewrite, where the query was rewritten; filter, where there is one: what its checks took together."""
    finish_reason: FinishReason
    degraded: tuple[str, ...] = ()
    """What failed on the way; a degraded turn is never trained on."""
    background: bool = False
    """A chat front end's own prompt (title, tags): answered, never trained on or reported."""
    transcript_mac: str | None = None
    """Keyed hash of the conversation up to this answer, by which the next request is recognised."""
    refusal: Refusal | None = None
    """Why a filter refused the query or the answer; `answer` is what was said in its place. Never trained on, nor shown to later turns."""

    @property
    def saved_tokens(self) -> int | None:
        """Input and output tokens saved against always fetching with the serving settings; None when not known."""
        for other in self.counterfactuals:
            if other.baseline == ALWAYS_FETCH:
                return (other.input_tokens + other.output_tokens) - (self.usage.input_tokens + self.usage.output_tokens)
        return None


ALWAYS_FETCH = "always_fetch"


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in one currency per million tokens."""

    input: float
    cached_input: float | None
    """None: cached input costs as much as input."""
    output: float
    currency: str
    version: str
    """Date of the price table that it is from."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the LLM, and which FAQs stand in it."""

    messages: tuple[Message, ...]
    fetched: tuple[str, ...] = ()
    """FAQ ids that were fetched for the current query; without repeats, some of them may stand with an earlier turn."""
    shown: tuple[str, ...] = ()
    """All FAQ ids in the prompt, each once, in order of appearance."""
