"""What a batch means: views, targets, outputs, metrics; and ``score``, the only pass without gradient."""
