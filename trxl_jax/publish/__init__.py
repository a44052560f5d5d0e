"""Publishes a trained agent: a folder with its parameters, a model card, a curve and a video."""
