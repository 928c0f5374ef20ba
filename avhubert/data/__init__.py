"""From files to batches: media, manifests, labels, text, augmentation, collation, loading."""
