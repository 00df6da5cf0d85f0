"""Style transfer with frozen, unconditional diffusion models."""
