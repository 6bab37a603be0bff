"""What is learned on top of features, and fine-tuning."""
