"""The model and its data as diffusers has them: pipelines, photographs, conditioning and batches, samples, class images."""
