"""Preparation: videos to mouth clips, audio, transcripts and manifests."""
