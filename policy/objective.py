"""What a policy is trained on: returns, advantages, losses, importance weights, and the multiplier of an error budget.

Pure functions over tensors: B turns, A actions, everything in nats. A `*_loss` is a scalar to minimise; what isn't learned
through (advantages, returns, action values, old probabilities) is detached here. Logits are finite: no action is masked.
NaN passes through the losses, where training sees it; what would hide it in a count or a bound is refused with ValueError.

Leaves out the optimiser and the loop (`train.py`), where rewards come from (`reward/shaping.py`) and estimates of a policy's
value (`evaluation/offpolicy.py`). Source: Kulkarni et al. 2024 (arXiv 2401.06800), with gamma 0.1 and entropy_coef 0.1; each
function names its own.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

STD_FLOOR = 1e-8
"""Added to a standard deviation before dividing by it, so that equal advantages become 0."""

KL_TOLERANCE = 1.5
"""A KL within this factor of its target leaves the coefficient alone (Schulman et al. 2017, section 4)."""

MIN_KL_COEF, MAX_KL_COEF = 1e-6, 1e6
"""Where halving and doubling end: without an end, a long quiet stretch of training halves the coefficient beyond return."""


def discounted_returns(rewards: Tensor, starts: Tensor, gamma: float) -> Tensor:
    """What each turn brings from now to the end of its conversation: G_t = r_t + gamma G_{t+1}.

    Shapes: rewards (B,) float; starts (B,) bool, True at each conversation's first turn. The turns of a conversation stand
    together, in order, and nothing flows across a start. Returns (B,). Raises ValueError when the shapes differ.
    """
    if rewards.ndim != 1 or rewards.shape != starts.shape:
        raise ValueError(f"rewards, starts: expected (B,) and (B,), got {tuple(rewards.shape)} and {tuple(starts.shape)}; "
                         "pass one start flag for each turn")
    returns: list[float] = []
    following = 0.0
    for reward, starts_here in zip(reversed(rewards.tolist()), reversed(starts.tolist()), strict=True):
        returns.append(reward + gamma * following)
        following = 0.0 if starts_here else returns[-1]
    return rewards.new_tensor(returns[::-1])


def advantages(returns: Tensor, baseline: float | Tensor, *, normalize: bool) -> Tensor:
    """How much better than the baseline each turn went: A = G - b; normalized to mean 0 and variance 1 over the batch.

    Shapes: returns (B,); baseline a number or (B,). Returns (B,). Normalizing makes a batch of one turn, or of equal
    advantages, all zero.
    """
    difference = returns - baseline
    if not normalize:
        return difference
    return (difference - difference.mean()) / (difference.std(correction=0) + STD_FLOOR)


def moving_baseline(previous: float | None, returns: Tensor, decay: float) -> float:
    """The next baseline: an exponential moving average of the mean return.

    Shapes: returns (B,), B >= 1. Units: decay in [0, 1], the share of the previous baseline that is kept. None as previous
    starts from this batch, so that there is no bias towards 0.
    """
    mean = float(returns.mean())
    return mean if previous is None else decay * previous + (1.0 - decay) * mean


def policy_gradient_loss(logits: Tensor, actions: Tensor, advantages: Tensor, *, entropy_coef: float) -> Tensor:
    """REINFORCE with an entropy bonus, averaged over the batch (Williams 1992).

    Shapes: logits (B, A); actions (B,) int64; advantages (B,). For logged turns, multiply the advantages with
    `importance_weights` first.
    """
    log_probs = logits.log_softmax(-1)
    objective = (_taken(log_probs, actions) * advantages.detach()).mean()
    return -(objective + entropy_coef * _entropy(log_probs).mean())


def all_action_loss(logits: Tensor, action_values: Tensor, *, entropy_coef: float) -> Tensor:
    """Expected value over all actions with an entropy bonus: -(sum_a pi(a) Q(a) + entropy_coef H), averaged.

    Its gradient is the mean of `policy_gradient_loss` over the actions that pi could have drawn, so sampling adds no variance;
    usable because both arms of a state are judged. Its minimum is pi = softmax(Q / entropy_coef).
    Shapes: logits, action_values (B, A). Source: all-actions method, Sutton & Barto 2018, section 13.3; expected policy
    gradients, Ciosek & Whiteson 2018.
    """
    log_probs = logits.log_softmax(-1)
    objective = (log_probs.exp() * action_values.detach()).sum(-1).mean()
    return -(objective + entropy_coef * _entropy(log_probs).mean())


def ppo_loss(logits: Tensor, values: Tensor, actions: Tensor, old_log_probs: Tensor, advantages: Tensor, returns: Tensor, *,
             clip: float, value_coef: float, entropy_coef: float) -> Tensor:
    """PPO: clipped surrogate, squared error of the value head, entropy bonus (Schulman et al. 2017, equations 7 and 9).

    Shapes: logits (B, A); values, actions, advantages, returns (B,); old_log_probs (B,), of the actions taken, under the policy
    that took them. Both sides of the ratio need dropout off, or the ratio of an unchanged policy isn't 1.
    """
    log_probs = logits.log_softmax(-1)
    ratios = (_taken(log_probs, actions) - old_log_probs.detach()).exp()
    gains = advantages.detach()
    surrogate = torch.minimum(ratios * gains, ratios.clamp(1.0 - clip, 1.0 + clip) * gains).mean()
    value_loss = (values - returns.detach()).square().mean()
    return value_coef * value_loss - (surrogate + entropy_coef * _entropy(log_probs).mean())


def kl_divergence(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """Mean KL(pi || reference) over the batch, in nats; its gradient goes to pi alone.

    Shapes: both (B, A). Returns a scalar.
    """
    log_probs = logits.log_softmax(-1)
    log_ratios = log_probs - reference_logits.detach().log_softmax(-1)
    return (log_probs.exp() * log_ratios).sum(-1).mean()


def adaptive_kl_coef(coef: float, kl: float, target: float) -> float:
    """The next KL coefficient: doubled when KL is above 1.5 targets, halved below target / 1.5, else the same.

    Source: Schulman et al. 2017, section 4 (not the proportional controller of Ziegler et al. 2019), and kept within
    MIN_KL_COEF and MAX_KL_COEF. 0 stays 0. A KL of NaN changes nothing.
    """
    if kl > KL_TOLERANCE * target:
        return min(2.0 * coef, max(coef, MAX_KL_COEF))
    if kl < target / KL_TOLERANCE:
        return max(0.5 * coef, min(coef, MIN_KL_COEF))
    return coef


def supervised_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy to the target actions, as a weighted mean: sum(w * CE) / sum(w).

    Shapes: logits (B, A); targets (B,) int64; weights (B,), >= 0. NaN when all weights are 0.
    """
    losses = cross_entropy(logits, targets, reduction="none")
    return (weights * losses).sum() / weights.sum()


def verdict_loss(verdict_logits: Tensor, good: Tensor) -> Tensor:
    """Cross-entropy of both arms' verdicts, averaged over those that are known; 0 when none is.

    Shapes: verdict_logits, good (B, A); good is 1, 0 or nan for a missing verdict. A task beside the policy's own that shares its
    features (Caruana 1997): whether an answer will be Good takes more to know than which action is better.
    """
    known = ~good.isnan()
    if not bool(known.any()):
        return verdict_logits.sum() * 0.0
    return binary_cross_entropy_with_logits(verdict_logits[known], good[known])


def best_of_k(action_rewards: Tensor, logits: Tensor, k: int, generator: Generator) -> Tensor:
    """The best-rewarded of k actions drawn from softmax(logits) for each state: targets for `supervised_loss`.

    Rejection sampling. Over two judged arms it tends to supervised learning on the better arm as k grows: a draw misses that
    arm with probability (1 - pi(better)) ** k. Ties go as the policy draws.
    Shapes: action_rewards, logits (B, A). Returns (B,) int64. Raises ValueError for k < 1 and for a NaN reward, which would
    win every comparison.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1 draw, got {k}")
    if bool(action_rewards.isnan().any()):
        raise ValueError(f"action_rewards: expected a reward for each action, got {int(action_rewards.isnan().sum())} NaN; "
                         "drop the states that have no verdict")
    drawn = torch.multinomial(logits.detach().softmax(-1), k, replacement=True, generator=generator)
    best = action_rewards.gather(-1, drawn).argmax(-1, keepdim=True)
    return drawn.gather(-1, best).squeeze(-1)


def importance_weights(target_probs: Tensor, behavior_probs: Tensor, *, clip: float) -> Tensor:
    """How much a logged turn counts for another policy: min(target / behavior, clip).

    Shapes: both (B,), probabilities of the action taken. Returns (B,), not detached. Clipping bounds the variance and biases
    towards the serving policy; `clip=inf` doesn't clip.
    Raises ValueError for a behavior_prob outside (0, 1].
    """
    usable = (behavior_probs > 0.0) & (behavior_probs <= 1.0)  # False for NaN
    if not bool(usable.all()):
        raise ValueError(f"behavior_probs: expected 0 < p <= 1, got {behavior_probs[~usable][:3].tolist()} among "
                         f"{int((~usable).sum())} such turns; drop the turns whose behavior_prob wasn't logged")
    return (target_probs / behavior_probs).clamp(max=clip)


def effective_sample_size(weights: Tensor) -> float:
    """How many equally weighted turns the weights are worth: (sum w)^2 / sum w^2, in [0, B] (Kish 1965).

    Shapes: weights (B,), >= 0. 0 when no turn has any weight.
    """
    if not bool(weights.any()):
        return 0.0
    shares = weights.double() / weights.double().max()  # squares of tiny or huge weights leave the range of floats
    return float(shares.sum().square() / shares.square().sum())


def dual_step(multiplier: float, skips: Tensor, harms: Tensor, *, budget: float, step: float, cap: float) -> float:
    """The next multiplier of the error budget: one step of dual ascent on E[skip * (harm - budget)] <= 0.

    It grows while skips harm more often than the budget allows, and shrinks while they harm less; always within [0, cap].
    Shapes: skips (B,), 0 or 1, or the probability of skipping; harms (B,), in [0, 1], what skipping would do in that state.
    Raises ValueError for a value outside [0, 1] or NaN: a multiplier that is NaN stays so.
    """
    for name, values in (("skips", skips), ("harms", harms)):
        usable = (values >= 0.0) & (values <= 1.0)  # False for NaN
        if not values.numel() or not bool(usable.all()):
            raise ValueError(f"{name}: expected one or more numbers in [0, 1], got {values[~usable][:3].tolist()} of {values.numel()}; "
                             "drop the turns that have no verdict")
    violation = float((skips * (harms - budget)).mean())
    return min(max(multiplier + step * violation, 0.0), cap)


def _taken(log_probs: Tensor, actions: Tensor) -> Tensor:
    """(B,): log-probability of the action that was taken."""
    return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def _entropy(log_probs: Tensor) -> Tensor:
    """(B,), in nats."""
    return -(log_probs.exp() * log_probs).sum(-1)
