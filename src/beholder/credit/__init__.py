"""Who earned it: rewards to advantages."""
