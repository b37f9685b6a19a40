"""What can go wrong in rewards.

    RewardError
    ├── PresetError        no preset of that name, or one that has no answer to what was asked
    └── ShapingInputError  verdicts or token counts that can't be turned into rewards
"""


class RewardError(Exception):
    """Base of every error that `reward` raises."""


class PresetError(RewardError):
    """A preset that isn't known, or that can't say what was asked; the message names those that can."""


class ShapingInputError(RewardError):
    """Verdicts or token counts don't fit together or aren't what they should be; the message names the argument."""
