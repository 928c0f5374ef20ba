"""A web page and an HTTP API that transcribe uploaded files."""
