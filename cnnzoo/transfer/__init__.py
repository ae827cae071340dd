"""From pretrained nets to new tasks: is the data sound, frozen features, shallow classifiers, fine-tuning."""
