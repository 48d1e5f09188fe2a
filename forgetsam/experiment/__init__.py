"""The lab: from a configuration to a trained, measured and kept run."""
