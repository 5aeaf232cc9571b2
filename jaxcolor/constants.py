"""Numbers that the papers fix and that are needed without loading JAX."""

PALETTE_SIZE = 313
"""Colors of the palette and outputs of the network (Zhang et al. 2016)."""
RESOLUTION = 256
"""Side in pixels of the square that the network sees (Mouzon et al. 2019: 64 x 64 cells of 4 pixels)."""
INPUT_MULTIPLE = 8
"""The network's body works at an eighth of the resolution, so resolutions are multiples of this."""
ANNEALING_TEMPERATURE = 0.38
"""T of the annealed mean (Zhang et al. 2016, equation 5): between the mean (1) and the mode (0)."""
ENLIVENING = 0.5
"""Share of the annealed distribution in what coupled TV begins with, where the mean is paler (derived). A lead, by a
script that was not kept: with it the colors of 19 of 20 training photos were more saturated than the annealed mean, of
13 without, at 2 % more ΔE2000. With 0.3 it was 19 too, at 1 %, but with half the margin."""
REBALANCING = 0.5
"""Power of the class weights in the methods' colors."""
