"""Metrics, intervals and the evaluation runner."""
