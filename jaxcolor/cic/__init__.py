"""The network of "Colorful Image Colorization" (Zhang, Isola, Efros 2016): luminance to color distribution."""
