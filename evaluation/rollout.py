"""Conversations played again under any sequence of actions: both arms of every state, each judged once.

A replay answers "what would the policy have read, what would the prompt have cost, would the answer have been Good?" for every
sequence of actions, by the planner's own state, the real renderer and tokenizer. Readers with fixed answers make a state depend on
the last few actions only, so it is computed once for all sequences that end alike. Leaves out choosing actions (`policy/`), walking
the states in training (`graph.py`) and figures (`gate.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chat.plan import PipelineConfig, read_state, static_faq
from chat.ports import Policy, Retriever, TokenCounter
from chat.prompt import PromptSettings, render
from chat.types import Action, PastTurn, Prompt, State
from evaluation.datasets import LabelledTurn, Session
from evaluation.errors import DatasetError
from kb.types import Faq
from reward.judge import Case, Judge
from reward.readers import Question, Reader, Reading

CHOICES = (Action.FETCH, Action.NO_FETCH)
"""Column order of every array over actions."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one action in one state costs and brings."""

    input_tokens: int
    output_tokens: int
    good: bool | None
    """None: unlabelled, or the judge couldn't tell."""
    safe: bool | None = None
    """The answer does no harm; None: the judge doesn't say."""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class World:
    """What all arms share: retrieval, rendering, reading, judging."""

    retriever: Retriever
    counter: TokenCounter
    reader: Reader
    judge: Judge
    config: PipelineConfig = field(default_factory=PipelineConfig)
    """Prompt setting, static answers, queries that the policy reads."""


@dataclass(frozen=True, slots=True)
class Step:
    """A turn as it was played, with both arms of its state."""

    turn: LabelledTurn
    action: Action
    taken: Arm
    fetch: Arm
    skip: Arm
    """Of a static answer, all three are what it cost and brought."""

    @property
    def skipped(self) -> bool:
        return self.action is Action.NO_FETCH


class Replay:
    """One conversation in one world. `taken` is always the sequence of actions up to the turn in question, so its length is the turn."""

    def __init__(self, session: Session, world: World) -> None:
        """Raises: DatasetError when a gold id isn't in the knowledge base."""
        self.session = session
        self._world = world
        self._questions = [_question(session, n, world.retriever) for n in range(len(session.turns))]
        searched = world.config.hits
        before = [None, *(turn.query for turn in session.turns[:-1])] if world.config.search_previous else [None] * len(session.turns)
        self._hits = [world.retriever.search(turn.query, k=searched, min_similarity=world.config.min_similarity, previous=previous)
                      for turn, previous in zip(session.turns, before, strict=True)]
        self._states: dict[tuple[int, tuple[Action, ...]], State] = {}
        self._arms: dict[tuple[int, tuple[Action, ...], Action], tuple[Arm, Reading]] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def choices(self, turn: int) -> tuple[Action, ...]:
        """FETCH and NO_FETCH, or STATIC alone where an FAQ answers by itself."""
        return CHOICES if self._static(turn) is None else (Action.STATIC,)

    def state(self, taken: tuple[Action, ...]) -> State:
        """What the policy reads at turn `len(taken)`."""
        key = self.key(taken)
        if key not in self._states:
            turn = len(taken)
            self._states[key] = read_state(self._questions[turn].query, self._history(taken), self._hits[turn],
                                           self._world.retriever, self._world.config)
        return self._states[key]

    def arm(self, taken: tuple[Action, ...], action: Action) -> Arm:
        """What the action costs and brings at turn `len(taken)`."""
        return self._played(taken, action)[0]

    def key(self, taken: tuple[Action, ...]) -> tuple[int, tuple[Action, ...]]:
        """Sequences of one key lead to the same state and arms."""
        memory = self._world.config.past_turns if self._world.reader.fixed_answers else len(taken)
        return len(taken), taken[len(taken) - min(memory, len(taken)) :]

    def _played(self, taken: tuple[Action, ...], action: Action) -> tuple[Arm, Reading]:
        key = (*self.key(taken), action)
        if key not in self._arms:
            self._arms[key] = self._play(taken, action)
        return self._arms[key]

    def _play(self, taken: tuple[Action, ...], action: Action) -> tuple[Arm, Reading]:
        world, turn = self._world, len(taken)
        question, history = self._questions[turn], self._history(taken)
        if action is Action.STATIC:
            faq = self._static(turn)
            assert faq is not None, "only a turn with a static answer has that choice"
            reading = Reading(faq.answer, (faq.id,))
            return Arm(0, 0, *self._judged(turn, history, (faq,), reading)), reading
        prompt = render(world.config.prompt, history, self._fetched(turn, action), question.query)
        reading = world.reader.read(question, prompt)
        shown = self._shown(prompt)
        arm = Arm(world.counter.count(prompt.messages), world.counter.count_text(reading.answer),
                  *self._judged(turn, history, shown, reading))
        return arm, reading

    def _judged(
        self, turn: int, history: tuple[PastTurn, ...], shown: tuple[Faq, ...], reading: Reading
    ) -> tuple[bool | None, bool | None]:
        """Whether the answer is Good, and whether it does no harm."""
        question = self._questions[turn]
        gold = None if question.gold is None else tuple(faq.id for faq in question.gold)
        case = Case(question.query, history, shown, reading.answer, reading.used, gold, self._found(turn))
        verdict = self._world.judge.judge([case])[0]
        return (None, None) if verdict is None else (verdict.good, verdict.safe)

    def _shown(self, prompt: Prompt) -> tuple[Faq, ...]:
        return tuple(faq for faq in map(self._world.retriever.get, prompt.shown) if faq is not None)

    def _history(self, taken: tuple[Action, ...]) -> tuple[PastTurn, ...]:
        first = max(0, len(taken) - self._world.config.past_turns)
        return tuple(self._past(taken[:turn], taken[turn]) for turn in range(first, len(taken)))

    def _past(self, taken: tuple[Action, ...], action: Action) -> PastTurn:
        """A turn that was played, as the next ones see it."""
        turn = len(taken)
        hits, fetched = tuple(hit.faq for hit in self._hits[turn]), self._fetched(turn, action)
        if action is Action.STATIC:
            said = f"{fetched[0].answer} [{fetched[0].id}]"  # as it is served
            return PastTurn(self._questions[turn].query, said, action, hits, fetched, (fetched[0].id,))
        if self._world.reader.fixed_answers:  # what it cites of earlier turns' FAQs doesn't matter: they stay with their own turn
            prompt = Prompt((), shown=tuple(faq.id for faq in fetched))
            reading = self._world.reader.read(self._questions[turn], prompt)
        else:
            reading = self._played(taken, action)[1]
        return PastTurn(self._questions[turn].query, reading.answer, action, hits, fetched, reading.used)

    def _fetched(self, turn: int, action: Action) -> tuple[Faq, ...]:
        if action is Action.NO_FETCH:
            return ()
        if action is Action.STATIC:
            return tuple(hit.faq for hit in self._hits[turn][:1])
        return self._found(turn)

    def _found(self, turn: int) -> tuple[Faq, ...]:
        """What a fetch shows, whatever was done."""
        return tuple(hit.faq for hit in self._hits[turn][: self._world.config.prompt.k])

    def _static(self, turn: int) -> Faq | None:
        return static_faq(self._hits[turn], self._world.config, began=turn == 0)


def replays(sessions: Sequence[Session], world: World) -> tuple[Replay, ...]:
    """A replay of each session. Raises: DatasetError naming session and turn whose gold id the knowledge base lacks."""
    return tuple(Replay(session, world) for session in sessions)


def play(replay: Replay, policy: Policy) -> tuple[Step, ...]:
    """The conversation under a policy, on its own transcript. Give a policy that doesn't explore."""
    return play_by(replay, lambda state, fetch, skip: policy.decide(state).action)


def play_by(replay: Replay, choose: Callable[[State, Arm, Arm], Action]) -> tuple[Step, ...]:
    """The conversation with actions chosen by state and both arms, which only an oracle may look at."""
    taken: tuple[Action, ...] = ()
    steps: list[Step] = []
    for turn in replay.session.turns:
        state, choices = replay.state(taken), replay.choices(len(taken))
        fetch, skip = (replay.arm(taken, choice) for choice in (choices[0], choices[-1]))
        action = choose(state, fetch, skip) if len(choices) > 1 else choices[0]
        steps.append(Step(turn, action, skip if action is choices[-1] else fetch, fetch, skip))
        taken = (*taken, action)
    return tuple(steps)


def oracle_needed(state: State, fetch: Arm, skip: Arm) -> Action:
    """Skips when no FAQ is needed, or one that is needed is in the prompt: when skipping is Good."""
    return Action.NO_FETCH if skip.good else Action.FETCH


def oracle_useful(state: State, fetch: Arm, skip: Arm) -> Action:
    """Skips when a fetch would not make the answer Good; fetches where that isn't known."""
    known = fetch.good is not None and skip.good is not None
    return Action.NO_FETCH if known and (skip.good or not fetch.good) else Action.FETCH


def always(replay: Replay) -> tuple[Arm, ...]:
    """The conversation with a fetch on every turn, turn by turn."""
    fetching = (Action.FETCH,) * len(replay)
    return tuple(replay.arm(fetching[:turn], Action.FETCH) for turn in range(len(replay)))


def with_setting(world: World, prompt: PromptSettings) -> World:
    """The same world with another prompt setting and no static answers: one in which a baseline is played."""
    config = PipelineConfig(prompt=prompt, baselines={}, min_similarity=world.config.min_similarity,
                            search_previous=world.config.search_previous)
    return World(world.retriever, world.counter, world.reader, world.judge, config)


def _question(session: Session, position: int, retriever: Retriever) -> Question:
    turn = session.turns[position]
    if turn.gold is None:
        return Question(turn.query, turn.answer, None)
    found = {faq_id: retriever.get(faq_id) for faq_id in turn.gold}
    if missing := [faq_id for faq_id, faq in found.items() if faq is None]:
        raise DatasetError(f"session {session.id}: turns[{position}].gold: expected ids of the knowledge base, got {missing[0]!r}, which "
                           "it doesn't hold; give the knowledge base that the labels are about with --kb, or mend the label")
    return Question(turn.query, turn.answer, tuple(faq for faq in found.values() if faq is not None))
