"""Live recognition: text while a person speaks, from a stream of frames, samples or both."""
