"""Pages that people look at: one HTML file with the answer, the curve, the samples and how to repeat them; no network is used."""
