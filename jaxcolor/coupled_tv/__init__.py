"""Coupled total variation: the variational model of Mouzon, Pierre and Berger (2019) and its solvers."""
