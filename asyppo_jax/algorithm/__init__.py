"""The method on arrays: experience, the two updates, and the step that joins them."""
