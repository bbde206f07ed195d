"""Tuning: which settings are tried, what became of each trial, and the search that runs them."""
