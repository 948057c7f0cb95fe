"""The decoder, its two heads, and the way in from and out to Hugging Face."""
