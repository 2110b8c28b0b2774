"""Artifacts, store, ledger, journal, state, steps: the ground, which knows no language model."""
