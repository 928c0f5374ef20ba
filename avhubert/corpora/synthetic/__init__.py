"""A corpus of drawn talking faces with true word and phone times, made here and nowhere copied from."""

from avhubert.corpora.synthetic.writer import Summary, make_corpus

__all__ = ["Summary", "make_corpus"]
