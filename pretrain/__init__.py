"""How weights change: models and encoders, objectives, loader, schedule, trainer. Knows no filters and no Ray."""
