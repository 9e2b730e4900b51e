"""Diffusion, flow, sequence and residual policies for control."""
