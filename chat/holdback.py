"""The holdback: a share of conversations that always fetch, so that what the gate saves and breaks can be told from the log.

Whole conversations are held back, by a hash of their id, so that a conversation stays on its side and a restart changes nothing. In them
every turn fetches and no FAQ answers by itself; the settings of the prompt are the same. Source: docs/metrics.md, "holdback". Leaves out
comparing the two sides (`report/quality.py`).
"""

import hashlib

from chat.types import Action, Decision

HOLDBACK_POLICY = "holdback"
"""`policy_version` of a turn of a conversation that is held back: the policy wasn't asked."""
HELD_BACK = Decision(Action.FETCH, 1.0, 0.0, 1.0, HOLDBACK_POLICY, "this conversation always fetches, to compare the others with")


def is_held_back(conversation_id: str, share: float) -> bool:
    """Whether a conversation is among the held back `share` of all, in [0, 1]; a larger share holds back all of a smaller one's."""
    drawn = int.from_bytes(hashlib.sha256(f"holdback\0{conversation_id}".encode()).digest()[:8])
    return drawn < share * 2**64
