"""The one stop algorithm: decide (pure), runner (effects), policy."""
