"""The published system as a straightforward PyTorch program: the baseline of every measurement in benchmarks/.

Written from the description of the published behaviour in papers and in `docs/explanation/`, with the tensor names of
published checkpoints. It shares no code with `avhubert`: padded batches, eager mode, float32, channels-first images,
a beam search with cached keys whose rows are copied when beams are reordered, OpenCV for video, scikit-image for the
crops, python_speech_features for the audio, scikit-learn for k-means. Where the description leaves a choice, the faster
one is taken (scaled_dot_product_attention, keys of the encoder that are not moved): a baseline is no straw man.
`tests/docs/test_benchmarks.py` compares its numbers with those of `avhubert`.
"""
