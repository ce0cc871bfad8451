"""Features to latents to distributions: parameters, layers, networks, action distributions."""
