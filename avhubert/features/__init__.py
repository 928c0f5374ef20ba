"""Features of clips and recordings: MFCC and model layers."""
