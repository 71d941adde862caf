"""From images to a curve: encoders, the scores of an image, and their mean at each checkpoint."""
