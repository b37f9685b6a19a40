"""Policies: State in, Decision out. Now the rules; the learned gate is to come."""
