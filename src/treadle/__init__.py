"""Treadle runs the whole life of a language model from one file."""
