"""Routing networks after Rosenbaum et al.: agents choose the modules of each layer."""
