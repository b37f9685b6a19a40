"""Judges, rubric, reward shaping, people's feedback: empty until the learned gate is built."""
