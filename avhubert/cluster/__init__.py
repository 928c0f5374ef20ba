"""Clusters of features: k-means, label folders and their metrics."""
