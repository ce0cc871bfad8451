"""Environments and a policy to arrays: rollouts, replay buffers, advantages."""
