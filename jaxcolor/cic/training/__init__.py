"""Training the CIC network on a folder of photos."""
