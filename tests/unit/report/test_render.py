"""The report's page: escaped, without a script or anything remote, its headline first, and whole also where little is known."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from report.figures import Cut
from report.render import comparison_page, page, part, stylesheet
from tests.unit.report.made import HOSTILE, UNKNOWN, empty_report, made_comparison, made_report


class Elements(HTMLParser):
    """What elements a page has, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made() -> str:
    return page(made_report())


def test_the_text_of_a_user_stays_text(made: str) -> None:
    found = Elements(made)
    assert HOSTILE in found.text
    assert "fees & <b>fines</b>" in found.text
    assert not {"script", "img", "iframe", "link", "object"} & {tag for tag, _ in found.tags}


def test_nothing_is_remote_and_nothing_can_run(made: str) -> None:
    found = Elements(made)
    assert not [attrs for _, attrs in found.tags if {"src", "href", "style"} & set(attrs) or any(name.startswith("on") for name in attrs)]
    assert "url(" not in stylesheet()
    assert "@import" not in stylesheet()
    [policy] = [attrs["content"] for tag, attrs in found.tags if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(stylesheet().encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert f"<style>{stylesheet()}</style>" in made


def test_saving_certainty_and_quality_stand_first(made: str) -> None:
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", made)[:3] == ["Saving", "Certainty", "Quality"]
    text = re.sub(r"\s+", " ", Elements(made).text)
    for said in ("35.5 %", "Between 33.7 % and 37.3 %.", "A real saving", "Sure", "1,240 conversations", "Quality kept", "+0.5 points",
                 "Harmful skips: 11 of 402 judged (2.7 %); at most 4.5 % with 95 % certainty, within the budget of 5.0 %."):
        assert said in text


def test_the_rest_of_the_report_is_there(made: str) -> None:
    text = re.sub(r"\s+", " ", Elements(made).text)
    for said in ("Where the saving comes from", "839,000", "the paper's always-fetch setting", "0.1820 USD", "local/llama", "2026-11-1",
                 "would have saved another 4.2 % of the money", "Saving and harm over the skip threshold", "With a fetch", "chatcmpl-01",
                 "At 1,000,000 turns a month", "283,800,000", "Traffic, FAQs and prices stay", "By policy", "demo:8f31c2",
                 "118 prompts of a chat front end", "331 in the always-fetch holdback", "42 turns were answered by a stand-in",
                 "10,000 draws of 1,240 conversations with seed 0", "fetchgate.savings/1", "too small to trust"):
        assert said in text, said


def test_every_table_has_a_caption_and_every_cell_the_name_of_its_column(made: str) -> None:
    found = Elements(made)
    tags = [tag for tag, _ in found.tags]
    assert tags.count("table") == tags.count("caption") > 5
    assert all(attrs.get("data-label") for tag, attrs in found.tags if tag == "td")
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in found.tags if tag == "th")
    assert all(attrs.get("aria-label") for tag, attrs in found.tags if tag == "svg")


def test_a_report_without_turns_says_so() -> None:
    text = Elements(page(empty_report())).text
    assert "There is no turn to report on." in text
    assert "There is nothing to report on yet." in text
    assert "nan" not in text.lower()
    assert "None" not in text


def test_what_is_not_known_is_a_dash_and_no_zero() -> None:
    report = made_report()
    money = replace(report.money, priced_turns=0, coverage=0.0, actual=None, counterfactual=None, saved=UNKNOWN, judge_cost=None,
                    compute_cost=None, net=UNKNOWN, caching=())
    text = Elements(part(replace(report, money=money, curve=None, forecast=None, alternatives=(), wrong_answers=()))).text
    assert "what was saved in money isn't known" in text
    assert "None" not in text


def test_computing_is_taken_off_in_words_only_where_it_is_in_figures() -> None:
    report = made_report()
    assert "USD after judging and computing." in " ".join(part(report).split())
    assert "USD after judging." in " ".join(part(replace(report, money=replace(report.money, compute_cost=None))).split())


def test_a_loss_is_said_as_a_loss() -> None:
    report = made_report()
    head = replace(report.against[0], saving=replace(report.against[0].saving, value=-0.1, low=-0.12, high=-0.08, verdict="worse"))
    html = part(replace(report, against=(head,), quality=replace(report.quality, verdict="worse")))
    assert "It cost more than always fetching" in html
    assert "card-bad" in html
    assert "Quality fell" in html


def test_long_cuts_are_cut_and_say_so() -> None:
    report = made_report()
    many = tuple(Cut(f"key-{n}", 1, 1, None, None, 1, 2, 1, UNKNOWN, None, UNKNOWN) for n in range(100))
    html = part(replace(report, by_owner=many))
    assert "60 more are in the JSON, CSV and Parquet files." in html
    assert "key-39" in html
    assert "key-40" not in html


def test_two_reports_stand_side_by_side() -> None:
    text = re.sub(r"\s+", " ", Elements(comparison_page(made_comparison())).text)
    assert "Token savings compared" in text
    assert "31.0 % 29.0 to 33.0 %" in text
    assert "+4.5 points +1.7 to +7.3 points" in text
    assert "what changed may be the traffic" in text


def test_a_reason_or_a_baseline_without_words_is_shown_by_its_name() -> None:
    report = made_report()
    odd = replace(report, scope=replace(report.scope, left_out={"lost_at_sea": 3}), against=(replace(report.against[0], baseline="terse"),),
                  method=replace(report.method, headline="terse"))
    text = " ".join(Elements(part(odd)).text.split())
    assert "3 lost_at_sea" in text
    assert "of the tokens of terse" in text
