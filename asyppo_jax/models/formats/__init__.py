"""Weight formats of other projects: Hugging Face directories and GGUF files."""
