"""Language models for the beam search: n-grams and causal language models."""
