"""Recipes: several commands in one, from raw data to a trained model."""
