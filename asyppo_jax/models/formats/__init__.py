"""Foreign weight formats: Hugging Face directories and GGUF files."""
