"""Fine-tuning: what a step sees, its loss, its optimiser, the arms beside Bayesian weights, and the one loop."""
