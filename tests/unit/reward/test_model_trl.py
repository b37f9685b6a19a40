"""Our loss of pairs is TRL's, value and gradient, computed by RewardTrainer's own code on the same rewards."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.reward_trainer import RewardTrainer

from reward.model import bradley_terry_loss

DRAW = torch.Generator().manual_seed(0)
CHOSEN, REJECTED = torch.randn(16, generator=DRAW), torch.randn(16, generator=DRAW)
MARGINS = torch.rand(16, generator=DRAW)


def trls(rewards: Tensor, margin: Tensor | None, centre: float | None = None) -> Tensor:
    """What `RewardTrainer.compute_loss` makes of rewards (2B,), chosen ones first; around it stands only what it counts with."""
    def gather(tensor: Tensor) -> Tensor:
        return tensor

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), args=SimpleNamespace(center_rewards_coefficient=centre),
        accelerator=SimpleNamespace(gather=gather, gather_for_metrics=gather), _total_train_tokens=0, _tp_size=1,
        _metrics={"train": defaultdict(list)})
    inputs: dict[str, Any] = {"attention_mask": torch.ones(len(rewards), 3)} | ({} if margin is None else {"margin": margin})

    def model(**_: object) -> SimpleNamespace:
        return SimpleNamespace(logits=rewards[:, None])

    theirs: Any = RewardTrainer.compute_loss
    loss: Tensor = theirs(trainer, model, inputs)
    return loss


@pytest.mark.parametrize("margin", [None, MARGINS, 3 * MARGINS], ids=["none", "small", "large"])
def test_the_loss_of_pairs_and_its_gradient_are_trls(margin: Tensor | None) -> None:
    one, other = (torch.cat([CHOSEN, REJECTED]).requires_grad_() for _ in range(2))
    ours, theirs = bradley_terry_loss(one[:16], one[16:], margin), trls(other, margin)
    ours.backward()  # type: ignore[no-untyped-call]
    theirs.backward()  # type: ignore[no-untyped-call]
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(one.grad, other.grad)


def test_centring_is_trls() -> None:
    """As `train.py` adds it: the mean squared sum of a pair's rewards."""
    theirs = trls(torch.cat([CHOSEN, REJECTED]), None, 0.01)
    assert float(bradley_terry_loss(CHOSEN, REJECTED) + 0.01 * (CHOSEN + REJECTED).square().mean()) == pytest.approx(float(theirs))
