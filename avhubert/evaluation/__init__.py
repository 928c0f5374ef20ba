"""Evaluation of a recognizer: error rates, reports and pseudo-labels."""
