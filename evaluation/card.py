"""A policy's model card, for people: what it is, what it was trained on, what it may be trusted with."""

from chat.prompt import PromptSettings
from policy.checkpoint import PolicyRecord, SkipCertificate


def model_card(record: PolicyRecord) -> str:
    """The card as Markdown."""
    dev = record.metrics["dev"]
    network, decision, claim = record.network, record.decision, record.certificate
    lines = [
        f"# {record.version}",
        "",
        "A gate for retrieval-augmented FAQ chat: on each turn it takes `FETCH` or `NO_FETCH` from the previous two queries, the actions "
        "taken for them, and the current query" + (", and from what retrieval says of it." if network.evidence else "."),
        "",
        "| | |",
        "|---|---|",
        f"| encoder | {network.encoder}, {network.trainable} trained, pooled by {network.pooling} |",
        f"| reward | {record.preset}; objective {record.training.get('config', {}).get('objective')}, seed {record.seed} |",
        f"| decides | NO_FETCH where mean P(NO_FETCH) - {decision.uncertainty_penalty:g} sd >= {decision.skip_threshold:.4f}, "
        f"{decision.samples} passes, dropout: {decision.mc_dropout} |",
        f"| prompt setting | {_setting(record.prompt)} |",
        f"| frugal always-fetch | {_setting(record.frugal)} |",
        f"| static answers | {'as the knowledge base is calibrated' if record.static else 'off'} |",
        *(f"| {split} | {digest[:16]} |" for split, digest in record.data.items()),
        "",
        "## Error budget",
        "",
        _budget(claim),
        "",
        "## On dev (it chose the epoch; the ideal reader answered)",
        "",
        f"Saving against frugal always-fetch {_interval(dev['saving_vs_frugal'])}, against the paper's setting "
        f"{_interval(dev['saving_vs_paper'])}; accuracy {dev['accuracy']:.1%} against {dev['accuracy_frugal']:.1%} "
        f"(difference {_interval(dev['accuracy_difference'])}). 95 % intervals by conversation, {dev['conversations']} conversations.",
        "",
        "No GPT-4 class model has read these prompts; labels say whether a gold FAQ stood in them. Trained on conversations of one help "
        "desk: on another, evaluate first (`fetchgate evaluate gate`), and certify a threshold anew.",
        "",
    ]
    return "\n".join(lines)


def _budget(claim: SkipCertificate | None) -> str:
    if claim is None:
        return "No threshold was tested: too few labelled skips."
    told = (f"Harmful skips are at most {claim.upper_conversation:.1%} of the skips (one-sided 95 %, by conversation; by turn "
            f"{claim.upper_turn:.1%}), on {claim.skips} skips of {claim.conversations} calibration conversations")
    if claim.certified:
        return f"{told}: the budget of {claim.budget:.0%} is certified."
    return (f"{told}. The budget of {claim.budget:.0%} that was asked for is not certified: that takes at least {claim.more_needed} more "
            "conversations with a labelled skip.")


def _setting(setting: PromptSettings) -> str:
    turns = setting.history_turns if setting.faq_turns is None else setting.faq_turns
    kept = "no FAQs kept" if setting.history_faqs == "none" or turns == 0 else f"{setting.history_faqs} FAQs of the last {turns} turns kept"
    return f"k = {setting.k}, {kept}, repeats {'shown' if setting.repeats else 'not shown'}"


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
