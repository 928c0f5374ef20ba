"""A synthetic corpus of talking faces, drawn and spoken here, with exact word and phone times."""
