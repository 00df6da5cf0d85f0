"""Style transfer with frozen, unconditional diffusion models (arXiv 2303.15403)."""
