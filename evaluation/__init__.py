"""Rollouts, baselines, statistics, promotion: empty until the learned gate is built."""
