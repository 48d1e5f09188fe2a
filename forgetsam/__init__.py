"""Sharpness-aware training as composable optax transforms."""
