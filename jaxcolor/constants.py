"""Numbers that the papers fix and that are needed without loading JAX."""

PALETTE_SIZE = 313
"""Colors of the palette and outputs of the network (Zhang et al. 2016)."""
RESOLUTION = 256
"""Side in pixels of the square that the network sees (Mouzon et al. 2019: 64 x 64 cells of 4 pixels)."""
INPUT_MULTIPLE = 8
"""The network's body works at an eighth of the resolution, so resolutions are multiples of this."""
ANNEALING_TEMPERATURE = 0.38
"""T of the annealed mean (Zhang et al. 2016, equation 5): between the mean (1) and the mode (0)."""
REBALANCING = 0.5
"""Power of the class weights in the methods' colors."""
