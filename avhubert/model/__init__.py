"""The network: inputs, front ends, encoder, decoder, masking and losses."""
