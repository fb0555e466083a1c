"""The mathematics of initialisation: activations, fans, schemes, sampling. Standard library only."""
