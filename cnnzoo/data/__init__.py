"""From names and folders to batches: sources -> arrays -> augment -> batches; and the weights' preprocessing."""
