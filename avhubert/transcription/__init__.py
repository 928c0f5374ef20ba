"""Transcription of video and audio files of any length."""
