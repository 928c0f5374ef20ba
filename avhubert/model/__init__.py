"""The network: inputs, front ends, encoder, decoder, masks and losses."""
