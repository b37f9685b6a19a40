"""Measuring: labelled sessions and their replays, gates and what they save and harm, certified thresholds, statistics, benchmarks."""
