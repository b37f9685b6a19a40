"""What can go wrong in rewards.

    RewardError
    ├── AgreementError     verdicts, a probe set or a record of agreement that can't be used
    │   └── JudgeRefusedError  a judge that agrees too little with people to train with, or that nobody has measured
    ├── PresetError        no preset of that name, or one that has no answer to what was asked
    ├── JudgeError         a judge can't be asked: its settings, key, budget or cache
    ├── PreferenceError    preferences or ratings that can't be learned from, or a reward model that can't be used
    └── ShapingInputError  verdicts or token counts that can't be turned into rewards
"""


class RewardError(Exception):
    """Base of every error that `reward` raises."""


class PresetError(RewardError):
    """A preset that isn't known, or that can't say what was asked; the message names those that can."""


class ShapingInputError(RewardError):
    """Verdicts or token counts don't fit together or aren't what they should be; the message names the argument."""


class JudgeError(RewardError):
    """A judge can't be asked at all; the message says what to mend. A case that it can't judge is a missing verdict, no error."""


class AgreementError(RewardError):
    """Verdicts can't be compared, or a file of them can't be used; the message names the argument, or file and line."""


class JudgeRefusedError(AgreementError):
    """The judge agrees too little with people, or was never measured; the message has the figures and says how to go on."""


class PreferenceError(RewardError):
    """Preferences can't be learned from, or a reward model's folder used; the message names file, line and field, or the folder."""
