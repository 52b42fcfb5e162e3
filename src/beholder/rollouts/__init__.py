"""How samples are drawn: transition kernels, step plans, trajectories and the engine that follows them."""
