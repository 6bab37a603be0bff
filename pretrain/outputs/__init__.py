"""What a training leaves and shows: model folders, cards, logs, curves, speed."""
