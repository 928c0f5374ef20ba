"""Decoding: beam search, CTC, language models and word alignment."""
