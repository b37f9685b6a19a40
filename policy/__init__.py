"""Policies: State in, Decision out. Rules, and the learned gate: its network, training, certainty and folder."""
