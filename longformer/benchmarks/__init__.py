"""Our parts and their peers measured side by side in one run."""
