"""The length of a prompt with every FAQ in it."""

from chat.prompt import PromptSettings, render
from report.prefix import prefix_tokens
from tests.conversation import FAQS
from tests.fakes import WordCounter


def test_it_is_what_the_faqs_add_to_a_prompt() -> None:
    counter = WordCounter()
    lengths = [counter.count(render(PromptSettings(), (), shown, "q").messages) for shown in (FAQS, ())]
    assert prefix_tokens(FAQS, counter) == lengths[0] - lengths[1] > 20


def test_without_faqs_it_is_zero() -> None:
    assert prefix_tokens((), WordCounter()) == 0
