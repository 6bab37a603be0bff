"""What a training must remember to go on after a kill, and the weights that it keeps on the way."""
