"""What is trained, as modules: architectures by name, towers, heads, tokenizers, and what phases change about them."""
