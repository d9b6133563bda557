"""Sources to examples to batches: splits, fingerprints, order of samples, augmentation."""
