"""Every figure of a gate, on six turns counted by hand."""

import json
import math
from typing import Any

import numpy as np
import pytest

from chat.prompt import PAPER, PromptSettings
from chat.types import Action
from evaluation.certify import harm_bound
from evaluation.datasets import Session
from evaluation.gate import baseline, figures, flat, measure, oracles
from evaluation.rollout import World, play, replays, with_setting
from evaluation.stats import resampled
from evaluation.turns import turns_of
from policy.rules import AlwaysFetch, EvidenceRule, NeverFetch
from tests.conversation import FAQS
from tests.fakes import ScriptedPolicy
from tests.unit.evaluation.played import CAR, HOURS_WORDS, MIXED, PARKING_WORDS, SHOP, bare_tokens, turn, world

SESSIONS = (SHOP, CAR)
ONE = PromptSettings(k=1)
F, N = Action.FETCH, Action.NO_FETCH
BARE = sum(bare_tokens(session, n) for session in SESSIONS for n in range(len(session.turns)))
"""Tokens of the six turns without any FAQ."""
ALWAYS = BARE + 4 * HOURS_WORDS + 2 * PARKING_WORDS
"""Fetching on every turn: the FAQ of a conversation's first turn stays for two more, and the last of SHOP fetches again."""


def gate(*actions: Action) -> ScriptedPolicy:
    """What it does in the four turns of SHOP, then in the two of CAR."""
    return ScriptedPolicy(actions)


def measured(*policies: Any, sessions: tuple[Session, ...] = SESSIONS, played: World | None = None,
             frugal: PromptSettings = ONE) -> dict[str, Any]:
    return figures(measure(sessions, played or world(ONE), policies, frugal))


def test_the_figures_of_six_turns_by_hand() -> None:
    found = measured(gate(F, N, N, N, N, F))
    # SHOP: good; small talk, good; unlabelled; out of the window, bad and a fetch would have helped
    # CAR: bad and a fetch would have helped; fetched in vain
    assert (found["conversations"], found["turns"], found["scored_turns"]) == (2, 6, 5)
    assert found["accuracy"] == pytest.approx(2 / 5)
    assert found["accuracy_frugal"] == pytest.approx(4 / 5)
    assert found["accuracy_difference"]["value"] == pytest.approx(-2 / 5)
    assert found["skip_rate"] == pytest.approx(4 / 6)
    assert found["static_rate"] == 0.0
    assert found["bad_skip"] == pytest.approx(2 / 3)
    assert found["harmful_skip"]["value"] == pytest.approx(2 / 3)
    assert found["useless_fetch"] == pytest.approx(1 / 2)
    assert found["saving_vs_frugal"]["value"] == pytest.approx(1 - (BARE + 3 * HOURS_WORDS) / ALWAYS)
    paper = baseline(SESSIONS, world(ONE), PAPER)
    assert found["saving_vs_paper"]["value"] == pytest.approx(1 - (BARE + 3 * HOURS_WORDS) / paper.tokens.sum())
    assert all(found[name]["too_small"] for name in ("saving_vs_frugal", "saving_vs_paper", "accuracy_difference"))


def test_each_slice_has_the_figures_of_its_own_turns() -> None:
    slices = measured(gate(F, N, N, N, N, F))["slices"]
    assert {kind: found["turns"] for kind, found in slices.items()} == {"chat": 1, "faq": 2, "return": 1, "smalltalk": 1, "unanswerable": 1}
    assert (slices["faq"]["accuracy"], slices["faq"]["skip_rate"], slices["faq"]["useless_fetch"]) == (0.5, 0.5, 0.0)
    assert (slices["return"]["bad_skip"], slices["return"]["harmful_skip"]["value"], slices["return"]["useless_fetch"]) == (1.0, 1.0, None)
    assert (slices["smalltalk"]["bad_skip"], slices["smalltalk"]["harmful_skip"]["value"]) == (0.0, 0.0)
    unanswerable = slices["unanswerable"]
    assert (unanswerable["useless_fetch"], unanswerable["bad_skip"], unanswerable["accuracy_frugal"]) == (1.0, None, 0.0)
    assert slices["return"]["saving_vs_frugal"]["value"] == pytest.approx(HOURS_WORDS / (bare_tokens(SHOP, 3) + HOURS_WORDS))
    # the unlabelled turn is counted in tokens and skips, and in nothing that takes a verdict
    chat = slices["chat"]
    assert (chat["skip_rate"], chat["saving_vs_frugal"]["value"]) == (1.0, 0.0)
    assert (chat["accuracy"], chat["bad_skip"], chat["harmful_skip"]["value"], chat["useless_fetch"]) == (None, None, None, None)
    assert chat["harmful_skip"]["upper_conversation"] == 1.0, "nothing is known to be harmless"


@pytest.mark.parametrize("setting", [ONE, PAPER, PromptSettings(k=2, history_faqs="cited", repeats=False)])
def test_always_fetching_in_the_frugal_setting_saves_exactly_nothing_and_loses_nothing(setting: PromptSettings) -> None:
    found = measured(AlwaysFetch(), sessions=(SHOP, CAR, MIXED), played=world(setting), frugal=setting)
    for name in ("saving_vs_frugal", "accuracy_difference"):
        assert (found[name]["value"], found[name]["low"], found[name]["high"]) == (0.0, 0.0, 0.0)
    assert found["accuracy"] == found["accuracy_frugal"]
    assert (found["skip_rate"], found["bad_skip"], found["harmful_skip"]["value"]) == (0.0, None, None)
    assert (found["harmful_skip"]["upper_conversation"], found["harmful_skip"]["upper_turn"]) == (1.0, 1.0)


def test_never_fetching_by_hand() -> None:
    found = measured(NeverFetch())
    assert found["saving_vs_frugal"]["value"] == pytest.approx(1 - BARE / ALWAYS)
    assert (found["accuracy"], found["skip_rate"], found["useless_fetch"]) == (pytest.approx(1 / 5), 1.0, None)
    assert (found["bad_skip"], found["harmful_skip"]["value"]) == (pytest.approx(4 / 5), pytest.approx(3 / 5))


def test_static_answers_are_neither_skips_nor_fetches() -> None:
    found = measured(NeverFetch(), played=world(ONE, static_threshold=1.0))
    assert (found["static_rate"], found["skip_rate"]) == (pytest.approx(3 / 6), pytest.approx(3 / 6))
    # small talk and the unanswerable turn are skipped with a verdict; all three static answers are good
    assert (found["bad_skip"], found["harmful_skip"]["value"], found["useless_fetch"]) == (pytest.approx(1 / 2), 0.0, None)
    assert found["accuracy"] == pytest.approx(4 / 5)
    # the next turns' prompts hold what was said, the FAQ's answer with its id, in the place of the session's "So it is."
    hours, parking = (len(f"{faq.answer} [{faq.id}]".split()) - 3 for faq_id in ("hours", "parking") for faq in FAQS if faq.id == faq_id)
    left = [bare_tokens(SHOP, 1) + HOURS_WORDS + hours, bare_tokens(SHOP, 2) + HOURS_WORDS + hours,
            bare_tokens(CAR, 1) + PARKING_WORDS + parking]
    assert found["saving_vs_frugal"]["value"] == pytest.approx(1 - sum(left) / ALWAYS)


def test_of_several_seeds_the_figures_are_means_and_the_bounds_those_of_the_worst() -> None:
    one, other = gate(F, N, N, N, N, F), gate(F, N, N, F, F, N)
    apart = [measured(gate(*policy.actions)) for policy in (one, other)]
    both = measured(one, other)
    assert [single["harmful_skip"]["value"] for single in apart] == [pytest.approx(2 / 3), 0.0]
    for name in ("accuracy", "skip_rate", "bad_skip", "useless_fetch"):
        assert both[name] == pytest.approx(np.mean([single[name] for single in apart]))
    for name in ("saving_vs_frugal", "saving_vs_paper", "accuracy_difference", "harmful_skip"):
        assert both[name]["value"] == pytest.approx(np.mean([single[name]["value"] for single in apart]))
    for bound in ("upper_conversation", "upper_turn"):
        assert both["harmful_skip"][bound] == max(single["harmful_skip"][bound] for single in apart)
    assert both["accuracy_frugal"] == apart[0]["accuracy_frugal"]


def test_two_seeds_of_one_policy_are_as_one() -> None:
    assert measured(EvidenceRule(0.3), EvidenceRule(0.3)) == measured(EvidenceRule(0.3))


def test_the_bounds_on_harm_are_those_of_the_certificate() -> None:
    found = measured(NeverFetch())["harmful_skip"]
    turns = turns_of([play(replay, NeverFetch()) for replay in replays(SESSIONS, world(ONE))])
    bound = harm_bound(turns.skips(), resampled(2))
    assert (found["value"], found["upper_conversation"], found["upper_turn"]) == (bound.value, bound.upper_conversation, bound.upper_turn)
    assert bound.skips == 5, "the unlabelled turn is no trial"


def test_intervals_hold_the_value_and_come_from_resampled_conversations() -> None:
    many = tuple(Session(f"{session.id}{n}", session.turns) for n in range(20) for session in SESSIONS)
    found = measured(NeverFetch(), sessions=many)
    for name in ("saving_vs_frugal", "saving_vs_paper", "accuracy_difference"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
        assert not found[name]["too_small"]
    assert found["saving_vs_frugal"]["low"] < found["saving_vs_frugal"]["high"]


SHAPES: dict[str, tuple[Session, ...]] = {
    "usual": (SHOP, CAR, MIXED),
    "nothing labelled": (Session("u", (turn("When are you open?", None), turn("xyzzy", None))),),
    "one turn": (Session("one", (turn("hello", ()),)),),
}


@pytest.mark.parametrize("sessions", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("policy", [AlwaysFetch(), NeverFetch(), EvidenceRule(0.3)], ids=["always", "never", "evidence"])
@pytest.mark.parametrize("static", [None, 1.0])
def test_figures_are_json_without_nan_whatever_the_sessions(sessions: tuple[Session, ...], policy: Any, static: float | None) -> None:
    found = measured(policy, sessions=sessions, played=world(ONE, static_threshold=static))
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    names = {"saving_vs_frugal", "saving_vs_paper", "accuracy", "accuracy_frugal", "accuracy_difference", "skip_rate", "static_rate",
             "bad_skip", "harmful_skip", "useless_fetch"}
    assert found.keys() == names | {"conversations", "turns", "scored_turns", "slices"}
    assert all(one.keys() == names | {"turns"} for one in found["slices"].values())
    for name, value in flat(found).items():
        assert value is None or isinstance(value, bool | int) or math.isfinite(value), name


def test_oracles_by_hand() -> None:
    found = oracles(SESSIONS, world(ONE), baseline(SESSIONS, world(ONE), ONE))
    needed = ALWAYS  # they fetch in SHOP's first turn, in the unlabelled one and in the last: what small talk skips had found nothing
    assert found["oracle_needed"] == {"saving": pytest.approx(1 - needed / ALWAYS), "accuracy": pytest.approx(4 / 5)}
    assert found["oracle_useful"] == {"saving": pytest.approx(1 - needed / ALWAYS), "accuracy": pytest.approx(4 / 5)}
    unlabelled = SHAPES["nothing labelled"]
    assert oracles(unlabelled, world(ONE), baseline(unlabelled, world(ONE), ONE))["oracle_useful"] == {"saving": 0.0, "accuracy": None}


def test_a_baseline_is_always_fetching_in_its_setting() -> None:
    found = baseline(SESSIONS, world(PAPER, static_threshold=1.0), ONE)
    assert found.tokens.sum() == ALWAYS
    assert found.good.tolist()[:2] == [1.0, 1.0]
    assert np.isnan(found.good[2])
    assert with_setting(world(PAPER, static_threshold=1.0), ONE).config.static_threshold is None


def test_nested_figures_get_dotted_names() -> None:
    assert flat({"a": 1, "b": {"c": None, "d": {"e": 2.0}}}) == {"a": 1, "b.c": None, "b.d.e": 2.0}
