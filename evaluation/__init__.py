"""Measuring: labelled data sets, how varied they are, thresholds, benchmarks. Rollouts and statistics come with the learned gate."""
