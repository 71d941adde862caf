"""What a run does against the corruption stage: Gaussian weights, simpler controls, or an arm of your own."""
