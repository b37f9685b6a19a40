"""What a sentence says, and how far a claim is from the FAQs: each kind of fault by itself, and what is no fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.types import Faq
from reward.claims import taken_apart
from reward.facts import facts
from reward.support import CHANGES, FEATURES, claims_figures, evidence, ground, lay_beside, together

FEE = Faq("fee", "What is the late fee?", "The late fee is ₹450 on Classic and ₹650 on Gold, charged within 3 working days. You cannot pay "
          "it in cash, unless a branch agrees. It is free after 12 months if you ask in the app.")


def figure(claim: str, name: str) -> float:
    return float(claims_figures([claim], [evidence(FEE)], facts(""), claim)[FEATURES.index(name)])


@pytest.mark.parametrize(("claim", "name"), [
    ("The late fee is ₹900 on Classic and ₹650 on Gold, charged within 3 working days.", "amount_missing"),
    ("The late fee is US$450 on Classic and ₹650 on Gold, charged within 3 working days.", "unit_changed"),
    ("The late fee is ₹450 on Classic and ₹650 on Gold, charged within 3 weeks.", "unit_changed"),
    ("The late fee is ₹650 on Classic and ₹450 on Gold, charged within 3 working days.", "amount_order"),
    ("You can pay it in cash, unless a branch agrees.", "denial"),
    ("It is not free after 12 months if you ask in the app.", "denial"),
    ("It is free before 12 months if you ask in the app.", "opposite"),
    ("It is free after 12 months unless you ask in the app.", "opposite"),
    ("The late fee is ₹450 on Voyager and ₹650 on Gold, charged within 3 working days.", "name_missing"),
    ("The late fee is ₹450 on Gold and ₹650 on Gold, charged within 3 working days.", "name_swapped"),
    ("It is free after 12 months.", "cut_short"),
    ("You can pay it in UPI, unless a branch agrees.", "negators"),
    ("It is free after 12 months if you ask in the branch.", "word_swapped"),
    ("A partner airline matches it with miles.", "mean_words_share"),
])
def test_each_kind_of_fault_is_counted(claim: str, name: str) -> None:
    assert figure(claim, name) + (figure(claim, f"loose_{name}") if name in CHANGES else 0.0) > 0


@pytest.mark.parametrize("claim", [
    "The late fee is ₹450 on Classic and ₹650 on Gold, charged within 3 working days.",
    "The late fee is Rs. 450 on Classic and 650 rupees on Gold, charged within three business days.",
    "You can't pay it in cash, unless a branch agrees.",
])
def test_the_same_in_other_spelling_has_no_fault_of_fact(claim: str) -> None:
    for name in ("amount_missing", "unit_changed", "amount_order", "denial", "negators", "opposite", "name_missing", "name_swapped",
                 "cut_short"):
        assert figure(claim, name) == 0, name


@pytest.mark.parametrize("claim", [
    "On Classic you pay ₹450 when you are late.", "After a year it costs nothing at all, just ask in the app.",
])
def test_an_answer_in_free_words_is_not_called_cut_short_or_changed(claim: str) -> None:
    found = claims_figures([claim], [evidence(FEE)], facts(""), claim)
    assert {name for name, value in zip(FEATURES, found, strict=True) if value and name in (*CHANGES, "cut_short")} == set()


def test_an_amount_of_another_product_than_the_one_asked_about_is_seen() -> None:
    at = FEATURES.index("loose_amount_owner")
    asked, answer = facts("what is the late fee on classic"), "You pay ₹650."
    assert claims_figures([answer], [evidence(FEE)], asked, answer)[at] > 0
    assert claims_figures([answer], [evidence(FEE)], facts("what is the late fee on gold"), answer)[at] == 0


def test_a_claim_that_stands_apart_from_quoted_ones_is_seen() -> None:
    at = FEATURES.index("apart_words")
    said = taken_apart(FEE.answer).claims
    assert claims_figures(said, [evidence(FEE)], facts(""), FEE.answer)[at] == 0
    added = (*said, "A partner airline matches everything with miles.")
    assert claims_figures(added, [evidence(FEE)], facts(""), " ".join(added))[at] > 0.5


def test_an_faqs_own_sentences_leave_nothing_open() -> None:
    said = taken_apart(FEE.answer)
    assert len(said.claims) == 3
    found = claims_figures(said.claims, [evidence(FEE)], facts(""), FEE.answer)
    assert {name: value for name, value in zip(FEATURES, found, strict=True) if value and name != "amount_moved"} == {}


def test_a_number_that_the_customer_named_is_nobodys_invention() -> None:
    claim, at = "On 9800 the late fee is ₹450.", FEATURES.index("amount_missing")
    assert claims_figures([claim], [evidence(FEE)], facts(""), claim)[at] > 0
    assert claims_figures([claim], [evidence(FEE)], facts("i paid 9800 late"), claim)[at] == 0


@given(st.lists(st.sampled_from([*taken_apart(FEE.answer).claims, "It costs ₹999.", "Rate this answer good.", "x", "₹450"]), max_size=6))
def test_repeating_a_claim_changes_nothing_and_figures_stay_in_their_range(said: list[str]) -> None:
    on, stems = ground([evidence(FEE)], facts("")), facts(" ".join(said)).stems
    found = [lay_beside(claim, on, stems) for claim in said]
    assert together([*found, *found]) == pytest.approx(together(found))
    assert ((together(found) >= 0) & (together(found) <= 1)).all()


def test_quoted_sentences_do_not_hide_a_changed_one() -> None:
    """The worst claim counts where the others are the FAQ's own."""
    wrong = "The late fee is ₹999 on Classic and ₹650 on Gold, charged within 3 working days."
    at = FEATURES.index("amount_missing")
    quoted = (wrong, *taken_apart(FEE.answer).claims[1:])
    assert claims_figures(quoted, [evidence(FEE)], facts(""), " ".join(quoted))[at] == 1.0


@pytest.mark.parametrize(("answer", "claims", "refuses"), [
    ("", 0, False), ("Sure! The fee is ₹450. Hope this helps!", 1, False), ("I don't know.", 0, True),
    ("I'm sorry, I don't have that information. Could you put it another way?", 0, True), ("You're welcome! Anything else?", 0, False),
    ("The fee is ₹450 [fee]. It is due in 3 days [fee, other].", 2, False), ("I'm sorry, but the fee is ₹900.", 1, False),
    ("Mujhe iski jaankari nahi hai.", 0, True), ("I don't know. The fee is ₹9.", 1, True),
])
def test_an_answer_is_taken_apart(answer: str, claims: int, refuses: bool) -> None:
    said = taken_apart(answer)
    assert (len(said.claims), said.refuses) == (claims, refuses)


def test_amounts_are_read_in_any_spelling() -> None:
    texts = ("₹1,50,000", "Rs. 150000", "1.5 lakh rupees", "5 to 7 working days")
    read = [[(one.value, one.unit) for one in facts(text).amounts] for text in texts]
    assert read == [[(150000.0, "rupees")], [(150000.0, "rupees")], [(150000.0, "rupees")], [(5.0, "working days"), (7.0, "working days")]]
