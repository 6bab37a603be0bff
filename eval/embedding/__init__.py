"""Pictures and texts become features, each once."""
